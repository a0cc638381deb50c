import { expect, test } from "vitest";
import { sharedTexts } from "../../src/models/decoder.js";
import { layout } from "../../src/models/layout.js";
import { predictionsOf } from "../../src/models/output-layer.js";
import { rowTokens } from "../../src/tasks/batches.js";
import type { TokenRow } from "../../src/models/types.js";

const [text, other] = [
  [5, 6, 7],
  [8, 9],
];
const row = (ids: number[], ...targets: number[]): TokenRow => ({ ids, types: [], targets });
const rows = [row(text, 20), row(other, 30, 31), row(text, 21, 22, 23), row([...text], 24, 25)];

test("a text is read once, however many answers it has; each answer is said where it would be alone", () => {
  const shared = sharedTexts(rows);
  expect(shared.map(({ ids }) => ids)).toEqual([
    [5, 6, 7, 21, 22, 24],
    [8, 9, 30],
  ]);
  expect(shared.map(({ positions }) => positions)).toEqual([
    [0, 1, 2, 3, 4, 3],
    [0, 1, 2],
  ]);
  const batch = layout(shared, 0, 4000);
  const { tokens, targets, owners, rows: count } = predictionsOf(batch);
  expect(count).toBe(rows.length);
  for (const [r, { ids, targets: expected }] of rows.entries()) {
    const mine = [...tokens.keys()].filter((n) => owners[r * tokens.length + n] === 1);
    expect(mine.map((n) => targets[n])).toEqual(expected);
    // The token that says a target is the one that stands before it.
    expect(mine.map((n) => batch.ids[tokens[n]!])).toEqual([ids.at(-1), ...expected!.slice(0, -1)]);
    expect(mine.map((n) => batch.positions[tokens[n]!])).toEqual(expected!.map((_, t) => ids.length - 1 + t));
  }
});

test("rows that say nothing stay as they are", () => {
  const given = [
    { ids: text, types: [] },
    { ids: text, types: [] },
  ];
  expect(sharedTexts(given)).toBe(given);
});

test("a text counts once where the same array follows itself, else each time", () => {
  expect(rowTokens(rows[0]!, rows[2]!)).toBe(3 + 1 + 3);
  expect(rowTokens(rows[2]!, rows[3]!)).toBe(3 + 3 + 3 + 2);
});
