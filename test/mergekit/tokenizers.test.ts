/** Vocabularies put together as mergekit 0.1.5 does it: the same rows for the same tokens, and their tokenizer. */
import { readdirSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { addedTokensIn, vocabularyIn } from "../../src/checkpoint/vocabulary.js";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { packageFolder } from "../../src/package.js";
import { mergeByMergekitFile } from "../../src/mergers/mergekit-file.js";
import { verify } from "../../src/run/verify.js";
import { toFloat32 } from "../../src/tensor/dtype.js";
import { temporaryFolder } from "../helpers.js";

const root = join(packageFolder, "test", "golden", "tokenizers");
const silent = { note() {}, progress() {}, stopping: () => false };

interface Expected {
  readonly vocab_size: number;
  readonly ids: Readonly<Record<string, number>>;
  readonly special: readonly string[];
}
const json = async <T>(path: string): Promise<T> => JSON.parse(await readFile(path, "utf8")) as T;

/** All tensors of a file; tables of tokens by token, and their other rows in order. */
async function readByToken(path: string, ids: ReadonlyMap<string, number>) {
  const file = await openSafetensors(path);
  const found: Record<string, Record<string, number[]>> = {};
  for (const [name, { shape }] of file.entries) {
    const values = [...toFloat32(await file.read(name))];
    const width = shape.at(-1)!;
    if (!/embed_tokens|lm_head/.test(name)) {
      found[name] = { all: values };
      continue;
    }
    const rows = Array.from({ length: shape[0]! }, (_, i) => values.slice(i * width, (i + 1) * width));
    const named = [...ids].map(([token, id]) => [token, rows[id]!] as const);
    const taken = new Set(ids.values());
    const padding = rows.filter((_, i) => !taken.has(i)).map((row, i) => [`padding ${i}`, row] as const);
    found[name] = Object.fromEntries([...named, ...padding]);
  }
  await file.close();
  return found;
}

describe.each(["untied", "tied"])("%s tables", (family) => {
  const files = readdirSync(join(root, family)).filter((file) => file.endsWith(".yml"));

  test("there are files", () => expect(files.length).toBeGreaterThan(9));

  test.each(files)("%s", async (file) => {
    const out = join(await temporaryFolder(), "out");
    await mergeByMergekitFile(join(root, family, file), { out, shardSize: 1e9, seed: 0 }, silent);
    const wanted = await json<Expected>(join(root, family, file.replace(".yml", ".json")));
    const tokens = (await vocabularyIn(out))!;
    expect([...tokens.keys()].sort()).toEqual(Object.keys(wanted.ids).sort());
    const ours = await readByToken(join(out, "model.safetensors"), tokens);
    const theirs = await readByToken(
      join(root, family, file.replace(".yml", ".safetensors")),
      new Map(Object.entries(wanted.ids)),
    );
    expect(Object.keys(ours).sort()).toEqual(Object.keys(theirs).sort());
    for (const [name, rows] of Object.entries(theirs)) {
      expect(Object.keys(ours[name]!).sort(), name).toEqual(Object.keys(rows).sort());
      for (const [token, row] of Object.entries(rows))
        for (const [i, value] of row.entries())
          expect(Math.abs(ours[name]![token]![i]! - value), `${name} ${token} ${i}`).toBeLessThan(2e-6);
    }
    const config = await json<Record<string, unknown>>(join(out, "config.json"));
    expect(config["vocab_size"]).toBe(wanted.vocab_size);
    // The ids that the config names are those of the same tokens.
    expect([config["bos_token_id"], config["eos_token_id"]]).toEqual([tokens.get("<s>"), tokens.get("</s>")]);
    const special = (await addedTokensIn(out)).filter((token) => Reflect.get(token, "special") === true);
    const shown = special.map(({ content }) => content).sort();
    expect(shown).toEqual(wanted.special.filter((token) => token !== "<unk>"));
    // What a token that is added is like is as the model has it that has it.
    const end = special.find(({ content }) => content === "<|im_end|>");
    if (end) expect(end).toMatchObject({ rstrip: true, normalized: false });
    const checks = await verify(out);
    expect(checks.filter(({ ok }) => ok === false)).toEqual([]);
  });
});

const untied = join(root, "untied");
const merged = async (more: string): Promise<string> => {
  const [path, out] = [join(await temporaryFolder(), "file.yml"), join(await temporaryFolder(), "out")];
  const models = ["a", "b"].map((name) => `{model: ${join(untied, name)}, parameters: {weight: 1}}`);
  await writeFile(path, `merge_method: linear\nmodels: [${models.join(", ")}]\n${more}`);
  await mergeByMergekitFile(path, { out, shardSize: 1e9, seed: 0 }, silent);
  return out;
};

test.each([
  ["{tokens: {x: {}}}", /tokens: "x": a model lacks it; name its source/],
  ["{tokens: {x: {source: nobody}}}", /tokens: "x": nobody is none of the models/],
  [`{tokens: {x: {source: ${join(untied, "a")}}}}`, /tokens: "x": .*a has no row for it/],
  [
    `{tokens: {x: {source: {kind: model_token, model: ${join(untied, "b")}, token_id: 9}}}}`,
    /tokens: "x": .*b has no row for it/,
  ],
  ["{source: nobody}", /nobody: there is no such folder/],
  [`{source: ${untied}}`, /untied: it is no folder of a tokenizer that can be taken/],
])("tokenizer: %s is refused", async (block, message) => {
  await expect(merged(`tokenizer: ${block}`)).rejects.toThrow(message);
});

test("a rule of a token that all have counts with force alone", async () => {
  const rowOf = async (out: string) => {
    const rows = await readByToken(join(out, "model.safetensors"), (await vocabularyIn(out))!);
    return rows["model.embed_tokens.weight"]!["a"];
  };
  const plain = await rowOf(await merged("tokenizer_source: base"));
  expect(await rowOf(await merged("tokenizer: {source: base, tokens: {a: {source: {kind: zero}}}}"))).toEqual(
    plain,
  );
  expect(
    await rowOf(await merged("tokenizer: {source: base, tokens: {a: {source: {kind: zero}, force: true}}}")),
  ).toEqual([0, 0, 0, 0]);
});

test("another's tokenizer comes with its files, without the base's", async () => {
  const out = await merged(`tokenizer_source: ${join(untied, "b")}`);
  expect(await readFile(join(out, "tokenizer.json"), "utf8")).toBe(
    await readFile(join(untied, "b", "tokenizer.json"), "utf8"),
  );
});
