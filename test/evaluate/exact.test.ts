import { expect, test } from "vitest";
import { isExact, normalised } from "../../src/evaluate/exact.js";
import { golden } from "../helpers.js";

test.each(golden<{ normalised: [string, string][] }>("generation").normalised)(
  "%j is compared as SQuAD compares it",
  (text, expected) => {
    expect(normalised(text)).toBe(expected);
  },
);

test("one of the right answers is enough", () => {
  expect(isExact("the Cat!", ["dog", "a cat"])).toBe(true);
  expect(isExact("cats", ["dog", "a cat"])).toBe(false);
});
