import { expect, test } from "vitest";
import { pythonShuffled } from "../../src/tasks/mersenne.js";
import { golden } from "../helpers.js";

test.each(golden<{ seed: number; count: number; order: number[] }[]>("shuffles"))(
  "Python's shuffle of $count with seed $seed",
  ({ seed, count, order }) => {
    expect(
      pythonShuffled(
        Array.from({ length: count }, (_, i) => i),
        seed,
      ),
    ).toEqual(order);
  },
);
