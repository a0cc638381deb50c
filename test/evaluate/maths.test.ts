import { expect, test } from "vitest";
import { areSame, boxed, isRightExpression, isRightNumber, lastNumber } from "../../src/evaluate/maths.js";
import { golden } from "../helpers.js";

/** Results of worked solutions, against MATH's authors' code (scripts/golden/maths.py) and GSM8K's own form. */
const { pairs, boxed: boxes } = golden<{
  pairs: [one: string, other: string, same: boolean][];
  boxed: [text: string, inside: string | null][];
}>("maths");

test("expressions are the same where MATH's code calls them so", () => {
  const wrong = pairs.filter(([one, other, same]) => areSame(one, other) !== same);
  expect(wrong).toEqual([]);
  expect(pairs.filter(([, , same]) => same).length).toBeGreaterThan(100);
});

test.each(boxes)("the last box of %j", (text, inside) => {
  expect(boxed(text) ?? null).toBe(inside);
});

test.each([
  ["2 + 2 = 4\n#### 4", 4],
  ["#### -1,234.5 and then 7", -1234.5],
  ["The answer is: $1,000. (Checked 3 times.)", 1000],
  ["so the answer is 12", 12],
  ["First 3, then 5 apples.", 5],
  ["It costs $4.50.", 4.5],
  ["none", NaN],
])("the number that %j ends in", (solution, number) => {
  expect(lastNumber(solution)).toBe(number);
});

test("a solution is right by its number, or by what it boxes", () => {
  const answers = ["2 + 2 = 4\n#### 4"];
  expect(isRightNumber("I think 2 and 2 are 4.", answers)).toBe(true);
  expect(isRightNumber("I think 2 and 2 are 5.", answers)).toBe(false);
  expect(isRightNumber("I do not know.", answers)).toBe(false);
  const solutions = ["Thus $\\boxed{\\frac{1}{2}}$."];
  expect(isRightExpression("So \\boxed{0.5}", solutions)).toBe(true);
  expect(isRightExpression("The answer is $\\frac12$.", solutions)).toBe(true);
  expect(isRightExpression("\\boxed{2}", solutions)).toBe(false);
  expect(isRightExpression("a half", solutions)).toBe(false);
});
