import { cp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageFolder } from "../../src/package.js";
import { loadTokenizer } from "../../src/tasks/tokenize.js";
import { golden, temporaryFolder } from "../helpers.js";

const base = join(packageFolder, "checkpoints", "mini", "base");

test("texts that are too long are cut as transformers cuts them", async () => {
  const cases =
    golden<{ maxLength: number; texts: [string] | [string, string]; ids: number[] }[]>("truncation");
  expect(cases.length).toBeGreaterThan(40);
  for (const { maxLength, texts, ids } of cases) {
    const encoder = await loadTokenizer(base, maxLength);
    expect({ texts, maxLength, ids: encoder.encode(texts).ids }).toEqual({ texts, maxLength, ids });
  }
});

test("a tokenizer that cannot work is refused", async () => {
  const folder = await temporaryFolder();
  await expect(loadTokenizer(folder, 32)).rejects.toThrow(/there is no tokenizer\.json/);
  await expect(loadTokenizer(base, 3)).rejects.toThrow(/leave no room for text in 3 tokens/);
  await cp(join(base, "tokenizer.json"), join(folder, "tokenizer.json"));
  const model = { type: "WordPiece", vocab: { "[UNK]": 0 }, unk_token: "[UNK]" };
  const odd = { post_processor: { type: "Odd" }, model, added_tokens: [] };
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(odd));
  await expect(loadTokenizer(folder, 32)).rejects.toThrow(/its post_processor is not one train-merge knows/);
});
