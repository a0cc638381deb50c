import { expect, test } from "vitest";
import { bestPoint } from "../../src/evaluate/baselines.js";
import { median } from "../../src/report/rows.js";

const point = (lambda: number, accuracy: number, loss: number) => ({ lambda, accuracy, loss });

test("λ has the best accuracy; the lower loss decides between equals, the smaller λ between twins", () => {
  expect(bestPoint([point(0.1, 0.5, 1), point(0.2, 0.7, 3), point(0.3, 0.6, 0.1)]).lambda).toBe(0.2);
  expect(bestPoint([point(0.1, 0.7, 2), point(0.2, 0.7, 1), point(0.3, 0.7, 3)]).lambda).toBe(0.2);
  expect(bestPoint([point(0.1, 0.7, 1), point(0.2, 0.7, 1)]).lambda).toBe(0.1);
});

test("a median: the middle value, or the mean of the two in the middle", () => {
  expect(median([3])).toBe(3);
  expect(median([9, 1, 2])).toBe(2);
  expect(median([9, 1, 2, 4])).toBe(3);
  expect(median([10, 9, 100])).toBe(10);
});
