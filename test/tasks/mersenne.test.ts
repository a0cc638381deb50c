import { expect, test } from "vitest";
import { pythonBelow } from "../../src/tasks/mersenne.js";
import { fisherYates } from "../../src/tasks/split.js";
import { golden } from "../helpers.js";

test.each(golden<{ seed: number; count: number; order: number[] }[]>("shuffles"))(
  "Python's shuffle of $count with seed $seed",
  ({ seed, count, order }) => {
    expect(
      fisherYates(
        Array.from({ length: count }, (_, i) => i),
        pythonBelow(seed),
      ),
    ).toEqual(order);
  },
);
