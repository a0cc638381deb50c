import { expect, test } from "vitest";
import { imageSize, preprocess, type Processor } from "../../src/tasks/pixels.js";
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

const dino = { size: 518, patch: 14, channels: 3, resizable: true };
test.each<[string, Processor, number]>([
  [
    "the crop's",
    { size: { shortest_edge: 256 }, do_center_crop: true, crop_size: { height: 224, width: 224 } },
    224,
  ],
  ["what is resized to", { size: { height: 252, width: 252 } }, 252],
  ["the model's, where nothing is said", {}, 518],
])("images of a model that takes several sizes have %s", (_, how, size) => {
  expect(imageSize(how, dino)).toBe(size);
  expect(imageSize(how, { ...dino, resizable: false })).toBe(518);
});

test("a size that is no square of whole patches is refused", () => {
  expect(() => imageSize({ size: { height: 224, width: 210 } }, dino)).toThrow(/224 × 210 are not squares/);
  expect(() => imageSize({ size: 225 }, dino)).toThrow(/225 × 225 are not squares of whole patches of 14/);
});
