import { join } from "node:path";
import { expect, test } from "vitest";
import { packageFolder } from "../../src/package.js";
import { loadTokenizer } from "../../src/tasks/tokenize.js";
import { golden } from "../helpers.js";

interface Characters {
  readonly text: string;
  readonly ids: number[];
  readonly spans: (readonly [number, number])[];
}
const cases = golden<Record<string, Characters[]>>("kinds/characters");
const folder = join(packageFolder, "test", "golden", "kinds", "characters");

test.each(Object.keys(cases))(
  "%s: tokens are of the characters that the tokenizers library reports",
  async (name) => {
    const tokenizer = await loadTokenizer(join(folder, name), 1000);
    const lone = name === "unigram" ? 4 : undefined;
    for (const { text, ids, spans } of cases[name]!) {
      const windows = tokenizer.encodeWindows("?", text);
      expect(windows).toHaveLength(1);
      const [{ within, ids: all, characters }] = windows as [(typeof windows)[number]];
      expect(all.slice(...within)).toEqual(ids);
      // A token of no characters (a lone sign of the tokenizer's) may stand anywhere.
      const said = (list: readonly (readonly [number, number])[]) =>
        list.filter((_, i) => ids[i] !== lone).map(([from, to]) => text.slice(from, to).trim());
      expect(said(characters), text).toEqual(said(spans));
    }
  },
);

test("a long context is read in windows that share half of it, each token's characters with it", async () => {
  const tokenizer = await loadTokenizer(join(folder, "wordpiece"), 20);
  const { text: once, ids } = cases["wordpiece"]![2]!;
  const text = `${once} ${once}`;
  const windows = tokenizer.encodeWindows("Who paid?", text);
  expect(windows.length).toBeGreaterThan(2);
  expect(new Set(windows.map(({ ids: one }) => one.length <= 20))).toEqual(new Set([true]));
  const starts = windows.map(({ characters }) => characters[0]![0]);
  expect(starts).toEqual([...starts].sort((a, b) => a - b));
  const [first, second] = windows as [(typeof windows)[number], (typeof windows)[number]];
  const length = first.within[1] - first.within[0];
  const shared = second.characters[0]!;
  expect(first.characters).toContainEqual(shared);
  expect(first.characters.findIndex(([from]) => from === shared[0])).toBe(length - (length >> 1));
  expect(windows.at(-1)!.characters.at(-1)![1]).toBe(text.length);
  expect(ids.length).toBeGreaterThan(length);
});
