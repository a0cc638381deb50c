import { expect, test, vi } from "vitest";
import { UserError } from "../../src/errors.js";
import type { ResultRow } from "../../src/report/rows.js";
import { missedOf } from "../../src/reproduce/run.js";
import { averageAccuracy, bestOf, claim, numberNamed } from "../../src/reproduce/claims.js";
import type { Lab, Produced } from "../../src/reproduce/types.js";
import { testRow } from "../helpers.js";

// What runs an experiment, and writes of it, is no part of this.
vi.mock("../../src/reproduce/lab.js", () => ({ openLabs: vi.fn() }));
vi.mock("../../src/reproduce/write.js", () => ({ writeExperiment: vi.fn() }));
vi.mock("../../src/inputs/locate.js", () => ({ locate: vi.fn(), foldersOf: vi.fn() }));
vi.mock("../../src/folder/output.js", () => ({ openOutput: vi.fn() }));

/** What claims are judged by: averages, who is best, and what is outside an expected range. */
const row = (method: string, task: string, value: number, seed = 0): ResultRow =>
  testRow(method, task, value, { seed });
const rows = [
  row("mine", "a", 0.8),
  row("mine", "b", 0.6),
  row("theirs", "a", 0.7),
  row("theirs", "b", 0.7),
  row("half", "a", 0.9),
  row("others", "h", 0.9),
];
const found = (of: readonly ResultRow[]): Produced => ({ rows: of, tables: [], figures: [] });
const lab = { tasks: ["a", "b"], heldOut: ["h"] } as unknown as Lab;

test("an average is over all tasks of the rows, or over those named; who lacks one is said to", () => {
  expect(averageAccuracy(rows, "mine", ["a", "b"])).toBeCloseTo(0.7, 12);
  expect(averageAccuracy(rows, "mine", ["a"])).toBe(0.8);
  expect(averageAccuracy(rows.slice(0, 4), "mine")).toBeCloseTo(0.7, 12);
  const refused = () => averageAccuracy(rows, "half", ["a", "b"]);
  expect(refused).toThrow(UserError);
  expect(refused).toThrow('there are no scores of "half" on all of a, b');
  // The rows name h too, which only others have.
  expect(() => averageAccuracy(rows, "mine")).toThrow('there are no scores of "mine" on all of a, b, h');
});

test("a number is known by its name", () => {
  expect(numberNamed({ gain: 0 }, "gain")).toBe(0);
  const refused = () => numberNamed({ gain: 0 }, "loss");
  expect(refused).toThrow(UserError);
  expect(refused).toThrow('there is no number "loss"');
});

test("a claim sees what was found; what it asks for and is not there cannot be told", () => {
  const produced = { ...found(rows), numbers: { "gain, a": 1, "gain, b": 2, other: 3 } };
  const judged = (isTrue: Parameters<typeof claim>[1]) => {
    const one = claim("it is so", isTrue);
    expect(one.text).toBe("it is so");
    return one.holds(produced, lab);
  };
  expect(judged((of, { tasks }) => of.rows === rows && of.average("mine", tasks) > 0.69)).toBe(true);
  expect(judged((of) => of.average("mine", ["a"]) === 0.8 && of.number("other") === 3)).toBe(true);
  expect(judged((of) => of.numbersOf("gain, ").join() !== "1,2")).toBe(false);
  expect(judged((of) => Object.keys(of.numbers).length === 3)).toBe(true);
  expect(judged(() => undefined)).toBeUndefined();
  expect(judged((of) => of.number("nothing") > 0)).toBeUndefined();
  expect(judged((of) => of.numbersOf("ain").length > 0)).toBeUndefined();
  expect(judged((of) => of.average("nobody") > 0)).toBeUndefined();
  expect(() =>
    judged(() => {
      throw new Error("a fault of ours");
    }),
  ).toThrow("a fault of ours");
  expect(claim("", (of) => of.number("x") > 0).holds(found(rows), lab), "no numbers at all").toBeUndefined();
});

test("the best is above every other, on the tasks that the claim is about", () => {
  const holds = (method: string, others: string[], where?: (of: Lab) => readonly string[]) =>
    bestOf("it is", method, others, where).holds(found([...rows, row("mine", "h", 1)]), lab);
  expect(bestOf("it is", "mine", ["theirs"]).text).toBe("it is");
  expect(holds("mine", ["theirs"])).toBe(false);
  expect(holds("mine", ["theirs"], () => ["a"])).toBe(true);
  expect(holds("theirs", ["mine"], () => ["b"])).toBe(true);
  expect(holds("mine", ["others"], ({ heldOut }) => heldOut)).toBe(true);
  expect(
    holds("mine", ["theirs", "half"], () => ["a"]),
    "one of two is above it",
  ).toBe(false);
  expect(holds("mine", ["half"]), "who lacks a task is not told").toBeUndefined();
  expect(holds("half", ["mine"])).toBeUndefined();
  expect(holds("mine", ["theirs", "half"]), "one that cannot be told is enough").toBeUndefined();
});

test("what is outside its range is named with both numbers; its ends are inside", () => {
  const range = {
    name: "mini",
    numbers: {
      low: { value: 0.5, tolerance: 0.25 },
      high: { value: 0.5, tolerance: 0.25 },
      outside: { value: 0.5, tolerance: 0.25 },
      below: { value: 0.5, tolerance: 0.25 },
      missing: { value: 1, tolerance: 0 },
    },
  } as unknown as Parameters<typeof missedOf>[1];
  const numbers = { low: 0.25, high: 0.75, outside: 0.7512345, below: 0.2, more: 9 };
  expect(missedOf(numbers, range)).toEqual([
    "outside: 0.7512, expected 0.5 ± 0.25 (mini)",
    "below: 0.2000, expected 0.5 ± 0.25 (mini)",
    "missing: it was not found, expected 1 ± 0 (mini)",
  ]);
  expect(missedOf({ ...numbers, outside: 0.5, below: 0.5, missing: 1 }, range)).toEqual([]);
});
