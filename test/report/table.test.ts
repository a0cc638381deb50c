import { expect, test } from "vitest";
import {
  toCsv,
  toHtml,
  toLatex,
  toMarkdown,
  averageRanks,
  resultTable,
  textOf,
  toText,
} from "../../src/report/table.js";
import { tableCaption } from "../../src/report/caption.js";
import { interval, differenceOf, type ResultRow } from "../../src/report/rows.js";
import { testRow } from "../helpers.js";

const row = (method: string, task: string, seed: number, value: number): ResultRow =>
  testRow(method, task, value, { seed });
const rows = [0, 1, 2].flatMap((seed) => [
  row("individual", "a", seed, 0.9),
  row("individual", "b_1", seed, 0.8),
  row("average", "a", seed, 0.5 + 0.1 * seed),
  row("average", "b_1", seed, 0.4),
  row("ties & co", "a", seed, 0.6 + 0.1 * seed),
  row("ties & co", "b_1", seed, 0.3),
  row("adamerging@test", "a", seed, 0.2),
  row("adamerging@test", "b_1", seed, 0.6),
]);

test("the 95 % interval is Student's", () => {
  // scipy.stats.t.interval(0.95, 2, loc=2, scale=1/sqrt(3)) is 2 ∓ 2.4841377118194486
  expect(interval([1, 2, 3])).toEqual({ mean: 2, half: expect.closeTo(2.4841377, 3), count: 3 });
  expect(interval([5])).toEqual({ mean: 5, half: 0, count: 1 });
  expect(interval(Array.from({ length: 60 }, (_, i) => i)).half).toBeCloseTo(4.5117, 1);
});

test("differences are taken seed by seed", () => {
  // Both rise with the seed alike, so that nothing is left of it.
  expect(differenceOf(rows, "average", "ties & co", ["a", "b_1"])).toEqual({
    mean: expect.closeTo(0, 12),
    half: expect.closeTo(0, 12),
    count: 3,
  });
  expect(
    differenceOf(
      rows.filter(({ seed }) => seed === 0),
      "average",
      "ties & co",
      ["a"],
    ),
  ).toBeUndefined();
});

test("ranks, averages, the best and the second, rows that saw test inputs", () => {
  const { head, body } = resultTable(rows);
  expect(head).toEqual(["method", "average", "rank", "against the best", "a", "b_1"]);
  expect(body.map((line) => textOf(line[0]!))).toEqual([
    "individual",
    "average",
    "ties & co",
    "adamerging@test †",
  ]);
  expect(body[0]!.slice(1)).toEqual(["85.0 ± 0.0", "–", "–", "90.0 ± 0.0", "80.0 ± 0.0"]);
  expect(body[1]![4]).toEqual({ text: "60.0 ± 24.8 (2)", mark: "second" });
  expect(body[3]![5]).toEqual({ text: "60.0 ± 0.0 (1)", mark: "best" });
  expect(body[3]![4]).toBe("20.0 ± 0.0 (3)");
  expect(body[3]!.slice(2, 4)).toEqual(["2.0", "-10.0 ± 12.4"]);
  expect(tableCaption(rows, true, 32)).toMatch(
    /^SYNTHETIC data; .*seeds 0, 1, 2: means ± 95 % intervals; † adapted on the test inputs/,
  );
  // A task that a method was not tested on.
  expect(
    resultTable(rows.filter(({ method, task }) => method !== "average" || task === "a")).body[1]!.map(textOf),
  ).toEqual(["average", "–", "–", "–", "60.0 ± 24.8 (2)", "–"]);
});

test("average ranks, of those that have every task; of two methods the best alone is marked", () => {
  expect([...averageRanks(rows, ["a", "b_1"])]).toEqual([
    ["average", 2],
    ["ties & co", 2],
    ["adamerging@test", 2],
  ]);
  const lacking = rows.filter(({ method, task }) => method !== "average" || task === "a");
  expect([...averageRanks(lacking, ["a", "b_1"])]).toEqual([
    ["ties & co", 1.5],
    ["adamerging@test", 2],
  ]);
  const two = resultTable(rows.filter(({ seed, method }) => seed === 0 && method !== "average")).body;
  expect(two[1]!.slice(1)).toEqual([
    { text: "45.0", mark: "best" },
    "1.5",
    { text: "60.0 (1)", mark: "best" },
    "30.0 (2)",
  ]);
  expect(two[2]!.slice(1)).toEqual(["40.0", "1.5", "20.0 (2)", { text: "60.0 (1)", mark: "best" }]);
  // Where rows differ in how many examples they saw, no number is said of all.
  expect(tableCaption(rows, false, undefined)).not.toContain("validation examples");
});

test("a table in every form", () => {
  const one = resultTable(rows.filter(({ seed }) => seed === 0));
  expect(toText(one).split("\n")[1]).toBe("individual            85.0     –      90.0      80.0");
  expect(toMarkdown(one).split("\n").slice(3)).toEqual([
    "| average | **45.0** | 2.0 | <ins>50.0 (2)</ins> | <ins>40.0 (2)</ins> |",
    "| ties & co | **45.0** | 2.0 | **60.0 (1)** | 30.0 (3) |",
    "| adamerging@test † | 40.0 | 2.0 | 20.0 (3) | **60.0 (1)** |",
  ]);
  expect(toLatex(one)).toContain("ties \\& co & \\textbf{45.0} & 2.0 & \\textbf{60.0 (1)} & 30.0 (3) \\\\");
  expect(toLatex(one)).toContain("method & average & rank & a & b\\_1 \\\\");
  expect(toLatex(one)).toContain("adamerging@test $^\\dagger$ &");
  expect(toHtml(one)).toContain("<tr><td>ties &amp; co</td><td><strong>45.0</strong></td>");
  const csv = toCsv(rows).split("\n");
  expect(csv[0]).toBe("method,task,metric,value,low,high,seeds,examples");
  expect(
    toCsv(rows, { command: "a, b", inputs: "f" })
      .split("\n")
      .map((line) => line.split(",").length),
  ).toEqual(csv.map((line, i) => line.split(",").length + (i === 0 ? 2 : 3)));
  expect(toCsv(rows, { command: "a, b", inputs: "f" })).toMatch(/,"a, b",f$/);
  expect(csv.find((line) => line.startsWith("adamerging@test,average"))).toMatch(
    /^adamerging@test,average,,0\.4,0\.4,0\.4,3,$/,
  );
});
