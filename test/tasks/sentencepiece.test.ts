import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { UserError } from "../../src/errors.js";
import { packageFolder } from "../../src/package.js";
import { loadTokenizer } from "../../src/tasks/tokenize.js";
import { temporaryFolder } from "../helpers.js";

/** A tokenizer that was never saved as a fast one: SentencePiece's own file (scripts/golden/sentencepiece_ids.py). */
const source = join(packageFolder, "test", "golden", "sentencepiece");
const folder = await temporaryFolder();
const ids = await readFile(join(source, "ids.json"), "utf8");
const { cases } = JSON.parse(ids) as {
  cases: { text: string; ids: number[] }[];
};
/** A folder with the model, or with other bytes for it, and a config. */
async function folderOf(name: string, bytes?: Uint8Array, config = '{"extra_ids": 4}'): Promise<string> {
  const made = join(folder, name);
  await mkdir(made, { recursive: true });
  if (bytes) await writeFile(join(made, "spiece.model"), bytes);
  else await cp(join(source, "spiece.model"), join(made, "spiece.model"));
  await writeFile(join(made, "tokenizer_config.json"), config);
  return made;
}

test.each(cases.map((one) => [JSON.stringify(one.text), one] as const))(
  "%s",
  async (_name, { text, ids }) => {
    const tokenizer = await loadTokenizer(source, 512);
    expect(tokenizer.whole(text, false)).toEqual(ids);
    // T5's end behind it.
    expect(tokenizer.whole(text, true)).toEqual([...ids, 1]);
  },
);

test("T5's tokens for places stand behind the model's, the last of them first", async () => {
  const tokenizer = await loadTokenizer(source, 512);
  expect(tokenizer.vocabulary).toBe(62 + 4);
  expect(tokenizer.specials).toContain("<extra_id_0>");
  const [of0, of3] = [tokenizer.whole("<extra_id_0>", false), tokenizer.whole("<extra_id_3>", false)];
  expect([of0.at(-1), of3.at(-1)]).toEqual([65, 62]);
  expect(tokenizer.text(tokenizer.whole("the cat sat", true))).toBe("the cat sat");
  expect(tokenizer.encode(["the cat", "the mat"]).ids.filter((id) => id === 1)).toHaveLength(2);
  const customary = await loadTokenizer(await folderOf("customary", undefined, "{}"), 512);
  expect(customary.vocabulary).toBe(62 + 100);
});

test("what is no such model is refused in one line, however it is cut", async () => {
  const bytes = await readFile(join(source, "spiece.model"));
  const refused = async (name: string, given: Uint8Array, config?: string) =>
    loadTokenizer(await folderOf(name, given, config), 512);
  await expect(refused("none", new Uint8Array())).rejects.toThrow(
    "it is no SentencePiece model (it has no pieces)",
  );
  await expect(refused("text", Buffer.from("hello, this is a text"))).rejects.toThrow(UserError);
  for (let cut = 1; cut < bytes.length; cut += 97)
    await refused(`cut-${cut}`, bytes.subarray(0, cut)).catch((error: unknown) =>
      expect(error, String(cut)).toBeInstanceOf(UserError),
    );
  // ALBERT's and XLNet's stand in files of the same name, and put other tokens around a text.
  const other = Buffer.from(bytes);
  other.write("[CLS]".slice(0, 4), other.indexOf("</s>"));
  await expect(refused("other", other)).rejects.toThrow("it is not of T5's kind");
  await expect(refused("many", bytes, '{"extra_ids": 1e9}')).rejects.toThrow("extra_ids must be a number");
});
