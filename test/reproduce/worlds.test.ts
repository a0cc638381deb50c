import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { ResultRow } from "../../src/report/rows.js";
import { claim, surenessText, verdictOf } from "../../src/reproduce/claims.js";
import { experiments } from "../../src/reproduce/index.js";
import { packRows, rowsFile, unpackRows } from "../../src/reproduce/kept-rows.js";
import { experimentFolder, readExpected } from "../../src/reproduce/papers.js";
import { tellClaims } from "../../src/reproduce/run.js";
import type { Lab, Produced } from "../../src/reproduce/types.js";
import { worldsOf } from "../../src/reproduce/worlds.js";

/** How sure claims are: worlds that are drawn from every test example's answer, and the rows that are kept. */
const lab = { tasks: ["a", "b"], heldOut: [], seeds: [0] } as unknown as Lab;
/** Marks of `count` examples of which the first `right` are right, turned by some places. */
const marks = (count: number, right: number, turn = 0): string =>
  Array.from({ length: count }, (_, i) => Number((i + turn) % count < right)).join("");
function row(method: string, task: string, right: string, seed = 0): ResultRow {
  const value = Array.from(right).filter((one) => one === "1").length / right.length;
  return { method, task, split: "test", metric: "accuracy", value, n: right.length, seed, right };
}
const produced = (...rows: readonly ResultRow[]): Produced => ({ rows, tables: [], figures: [] });
const isBetter = claim("x is better than y", ({ average }) => average("x") > average("y"));
const verdict = (found: Produced, of = 1) =>
  verdictOf(isBetter.holds(found, lab), isBetter.sureness(found, lab), of);

test("examples are drawn anew, alike for all methods, and the values are those of the draw", () => {
  const rows = [row("x", "a", marks(50, 20)), row("y", "a", marks(50, 20)), row("x", "b", marks(30, 9))];
  const worlds = worldsOf(rows)!;
  expect(worlds.examples).toBe(80);
  const values = Array.from({ length: 400 }, (_, draw) => worlds.at(draw));
  for (const [x, y] of values) expect(x!.value).toBe(y!.value);
  const drawn = values.map(([x]) => x!.value);
  const mean = drawn.reduce((sum, one) => sum + one, 0) / drawn.length;
  const deviation = Math.sqrt(drawn.reduce((sum, one) => sum + (one - mean) ** 2, 0) / drawn.length);
  // A binomial's: 0.4 ± √(0.4 · 0.6 / 50).
  expect(Math.abs(mean - 0.4)).toBeLessThan(0.015);
  expect(Math.abs(deviation - Math.sqrt(0.24 / 50))).toBeLessThan(0.012);
  expect(worlds.at(3), "the same draw again").toEqual(worldsOf(rows)!.at(3));
});

test("what two methods answer alike falls away: few better answers settle it, many of either kind do not", () => {
  const y = marks(1200, 600);
  // Twenty more are right, and none less.
  const more = [row("x", "a", marks(1200, 620)), row("y", "a", y)];
  expect(verdict(produced(...more))).toBe("yes");
  // As many more in all, of 300 that are answered otherwise.
  const other = [row("x", "a", marks(1200, 620, 150)), row("y", "a", y)];
  expect(verdict(produced(...other))).toBe("not settled");
  expect(verdict(produced(row("x", "a", y), row("y", "a", marks(1200, 620))))).toBe("no");
  // Fewer than a thousand examples settle nothing.
  const few = produced(row("x", "a", marks(900, 880)), row("y", "a", marks(900, 100)));
  expect(verdict(few)).toBe("not settled");
  expect(surenessText({ holds: true, sureness: isBetter.sureness(few, lab) })).toMatch(
    /measured so; it holds in 100\.00 % of what is drawn from 900 test examples, fewer than 1,000/,
  );
});

test("seeds are drawn too: what one of three seeds says is not settled", () => {
  const rows = [0, 1, 2].flatMap((seed) => [
    row("x", "a", marks(2000, seed === 0 ? 1500 : 980), seed),
    row("y", "a", marks(2000, 1000), seed),
  ]);
  expect(isBetter.holds(produced(...rows), lab)).toBe(true);
  expect(verdict(produced(...rows))).toBe("not settled");
});

test("of several claims each has to be surer; what cannot be drawn goes by the numbers", () => {
  expect(verdictOf(true, { share: 0.98, examples: 2000 }, 1)).toBe("yes");
  expect(verdictOf(true, { share: 0.98, examples: 2000 }, 2)).toBe("not settled");
  expect(verdictOf(false, { share: 0.02, examples: 2000 }, 1)).toBe("no");
  expect(verdictOf(false, { share: 0.2, examples: 2000 }, 1)).toBe("not settled");
  expect(verdictOf(undefined, undefined, 1)).toBe("cannot be told");
  const unmarked = produced(
    ...[row("x", "a", "11"), row("y", "a", "00")].map((one) => ({ ...one, right: undefined })),
  );
  expect(isBetter.sureness(unmarked, lab)).toBeUndefined();
  expect(verdict(unmarked)).toBe("yes");
  const ofNumbers = claim("n is large", ({ number }) => number("n") > 1);
  expect(ofNumbers.sureness({ ...produced(row("x", "a", "11")), numbers: { n: 2 } }, lab)).toBeUndefined();
});

test("of several templates the median is drawn; pairs of one test set share its examples", () => {
  const three = { ...row("x", "a", "1100"), right: "1111|1100|0000" };
  expect(new Set([0, 1, 2].map((draw) => worldsOf([three])!.at(draw)[0]!.value)).size).toBeGreaterThan(1);
  const pairs = worldsOf([row("x", "a (a+b)", marks(40, 10)), row("x", "a (a+c)", marks(40, 10))])!;
  expect(pairs.examples).toBe(40);
  const [one, other] = pairs.at(1);
  expect(one!.value).toBe(other!.value);
});

test("rows are kept and read again as they were", () => {
  const rows = [
    row('x, "quoted"', "a (a+b)", "1101"),
    { ...row("y", "b", "10"), right: undefined },
    { ...row("z", "c", "10"), right: "10|01" },
  ];
  expect(unpackRows(packRows(rows))).toEqual(rows.map((one) => JSON.parse(JSON.stringify(one)) as ResultRow));
  expect(Buffer.compare(Buffer.from(packRows(rows)), Buffer.from(packRows(rows)))).toBe(0);
});

describe("every verdict that is kept follows from the kept rows", async () => {
  for (const experiment of experiments) {
    const { families } = await readExpected(experiment);
    for (const { name, tasks, heldOut, seeds, numbers, claims = [] } of families) {
      const path = join(experimentFolder(experiment), name, rowsFile);
      const quoted = claims.filter(({ sureness }) => sureness !== undefined);
      if (!existsSync(path) || quoted.length === 0) continue;
      test(`${experiment.id}, ${name}`, () => {
        const rows = unpackRows(readFileSync(path));
        const values = Object.entries(numbers).map(([key, { value }]) => [key, value] as const);
        const found = { ...produced(...rows), numbers: Object.fromEntries(values) };
        const kept = { tasks, heldOut, seeds } as unknown as Lab;
        const told = tellClaims(experiment, found, kept);
        for (const { text, verdict: said, sureness } of quoted) {
          const again = told.find((one) => one.text === text);
          expect(again?.sureness, text).toEqual(sureness);
          expect(again?.verdict, text).toBe(said);
        }
      });
    }
  }
});
