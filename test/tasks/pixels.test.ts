import { expect, test } from "vitest";
import { preprocess, type Processor } from "../../src/tasks/pixels.js";
import { golden, relativeError } from "../helpers.js";

interface Case {
  name: string;
  height: number;
  width: number;
  pixels: number[];
  processor: Processor;
  size: number;
  values: number[];
}

test.each(golden<Case[]>("images").map((g) => [g.name, g] as const))(
  "%s: as transformers' processor makes it",
  (_, g) => {
    const made = preprocess(
      { height: g.height, width: g.width, channels: 3, pixels: Uint8Array.from(g.pixels) },
      g.processor,
      { size: g.size, channels: 3 },
    );
    expect(made.length).toBe(g.values.length);
    expect(relativeError(made, g.values)).toBeLessThan(2e-6);
  },
);
