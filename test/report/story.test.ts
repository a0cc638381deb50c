import { expect, test } from "vitest";
import { coefficientMapHtml, mapData, placeOf } from "../../src/report/coefficient-map.js";
import { methodScores } from "../../src/report/methods-chart.js";
import type { ResultRow } from "../../src/report/rows.js";
import { columnStory, headline } from "../../src/report/story.js";
import { testRow } from "../helpers.js";

const row = (method: string, task: string, value: number, more: Partial<ResultRow> = {}): ResultRow =>
  testRow(method, task, value, { n: 400, ...more });
const rows = [
  row("individual", "a", 1),
  row("individual", "b", 0.9),
  row("pretrained", "a", 0.3),
  row("pretrained", "b", 0.3),
  row("average", "a", 0.5),
  row("average", "b", 0.6),
  row("ties", "a", 0.7),
  row("ties", "b", 0.8),
  row("supermerge", "a", 0.9),
  row("supermerge", "b", 0.8),
];

test("a mean's interval: of one seed what its test examples leave open, of several the seeds'", () => {
  const [merge] = methodScores(rows.slice(-2), ["a", "b"]);
  // Two shares of 400: half the root of the sum of their variances, times 1.96.
  const half = (100 * 1.96 * Math.sqrt((0.9 * 0.1) / 400 + (0.8 * 0.2) / 400)) / 2;
  expect(merge).toEqual({
    method: "supermerge",
    mean: expect.closeTo(85, 9),
    low: expect.closeTo(85 - half, 9),
    high: expect.closeTo(85 + half, 9),
    n: 800,
  });
  const seeds = [0.8, 0.9].map((value, seed) => row("m", "a", value, { seed }));
  const [several] = methodScores(seeds, ["a"]);
  // t of one degree of freedom.
  expect(several!.high).toBe(100);
  expect(several!.low).toBeCloseTo(85 - (100 * 12.706 * Math.SQRT1_2 * 0.1) / Math.SQRT2, 6);
  expect(methodScores([row("half", "a", 1)], ["a", "b"])).toEqual([]);
});

test("the sentence: the last row is the merge, beside the experts and the best of the others", () => {
  const said = headline(rows, ["a", "b"]);
  expect(said).toMatch(/^supermerge is right on 85\.0 % \(82\.6 to 87\.5\), on average over a and b;/);
  expect(said).toContain("come to 95.0 %, of which it keeps 89.5 %");
  expect(said).toContain("10.0 points above ties (75.0), the best of the other merges here");
  expect(said).toMatch(/Measured on 800 test examples, one seed\.$/);
  expect(headline(rows.slice(0, 4), ["a", "b"])).toBe("");
});

test("a difference within the intervals is not called one; what is no accuracy is a score", () => {
  const near = [...rows.slice(0, -2), row("supermerge", "a", 0.72), row("supermerge", "b", 0.8)];
  expect(headline(near, ["a", "b"])).toContain("1.0 points above ties (75.0), which so few examples");
  const below = [...rows.slice(0, -2), row("supermerge", "a", 0.4), row("supermerge", "b", 0.4)];
  expect(headline(below, ["a", "b"])).toContain("35.0 points below ties (75.0), the best");
  const scored = rows.map((one) => ({ ...one, metric: "f1" }));
  expect(headline(scored, ["a", "b"])).toMatch(/^supermerge scores 85\.0 %/);
});

test("an expert's story: where it counts, and what of it does nothing", () => {
  const entries = [
    ["embeddings.word", 0.1],
    ["encoder.layer.0.q", 0.5],
    ["encoder.layer.0.k", 0.7],
    ["encoder.layer.1.q", 0.005],
    ["encoder.layer.1.k", -0.2],
  ].map(([layer, coefficient]) => ({ layer: String(layer), coefficient: Number(coefficient) }));
  expect(columnStory({ task: "a", entries, saturated: 2 })).toBe(
    "a counts 0.22 on average over 5 layers, most in block 0 (0.60) and least in block 1 (-0.10); 1 layer takes " +
      "nothing of it, 1 layer takes its opposite, 2 are at the gate's end and move no more.",
  );
  expect(columnStory({ task: "b", entries: [{ layer: "model", coefficient: 0.5 }] })).toBe(
    "b counts 0.50 on average over 1 layer.",
  );
});

test("the map: a block a row, a kind a column, what is outside apart; a cell of nothing is none", () => {
  expect(placeOf("encoder.layer.3.attention.self.query.weight")).toEqual({
    block: "encoder.layer.3",
    kind: "attention.self.query.weight",
  });
  expect(placeOf("layers.12")).toEqual({ block: "layers.12", kind: "all of it" });
  expect(placeOf("embeddings.word.weight").block).toBe("outside of blocks");
  const map = {
    tasks: ["a", "<b>"],
    layers: ["embed", "layers.0.q", "layers.0.k", "layers.1.q"],
    shots: [
      {
        step: "as written",
        values: [
          [1, 2],
          [3, 4],
          [5, 6],
          [7, 8.123456],
        ],
      },
    ],
  };
  const html = coefficientMapHtml(map);
  expect(html.match(/data-c="/g)).toHaveLength(8);
  expect(html.match(/class="none"/g)).toHaveLength(2);
  expect(html).toContain('data-c="5" data-l="&lt;b&gt;, layers.0.k"');
  expect(html).not.toContain("<b>");
  expect(html).not.toContain("range");
  expect(JSON.parse(mapData(map))).toEqual({ steps: ["as written"], values: [[1, 2, 3, 4, 5, 6, 7, 8.123]] });
});
