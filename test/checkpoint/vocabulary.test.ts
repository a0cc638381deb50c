import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openMember } from "../../src/checkpoint/family.js";
import { withOneVocabulary } from "../../src/checkpoint/vocabulary.js";
import { runsOfRows, toFloat32 } from "../../src/tensor/dtype.js";
import { byFile, merge, model } from "../mergers/small.js";

/** A model whose token t has the rows [x, id] in both tables, `x` being the token's own number. */
async function speaker(
  name: string,
  tokens: readonly string[],
  { shift = 0, padding = 0, list = "tokenizer.json" } = {},
): Promise<string> {
  const rows = [
    ...tokens.map((token) => token.charCodeAt(0) + shift),
    ...Array.from({ length: padding }, () => shift),
  ];
  const table = rows.flatMap((x) => [x, 10 * x]);
  const folder = await model(name, {
    "model.embed_tokens.weight": [[rows.length, 2], ...table],
    "model.layers.0.q.weight": [[2], shift, 1],
    "lm_head.weight": [[rows.length, 2], ...table],
  });
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  if (list === "vocab.txt") await writeFile(join(folder, list), `${tokens.join("\n")}\n`);
  else if (list === "vocab.json") await writeFile(join(folder, list), JSON.stringify(vocab));
  else if (list === "unigram")
    await writeFile(
      join(folder, "tokenizer.json"),
      JSON.stringify({ model: { type: "Unigram", vocab: tokens.map((token) => [token, -1]) } }),
    );
  else {
    const [last = ""] = tokens.slice(-1);
    const { [last]: id, ...others } = vocab;
    const added = [{ id, content: last, special: true }];
    await writeFile(
      join(folder, "tokenizer.json"),
      JSON.stringify({ model: { vocab: others }, added_tokens: added }),
    );
  }
  return folder;
}
const rowsOf = (tokens: string, shift: number): number[] =>
  tokens.split("").flatMap((token) => [token.charCodeAt(0) + shift, 10 * (token.charCodeAt(0) + shift)]);

test.each(["tokenizer.json", "vocab.json", "vocab.txt", "unigram"])(
  "the same tokens with other ids in %s: rows are moved, and it is said",
  async (list) => {
    const base = await speaker("base", ["a", "b", "c", "d"], { list });
    const one = await speaker("one", ["b", "c", "a", "d"], { shift: 2, list });
    const merged = await merge([one], { base });
    const tensors = await merged.tensors();
    // Every token is moved by the expert's shift, wherever its row stood.
    expect(tensors["model.embed_tokens.weight"]).toEqual(rowsOf("abcd", 2));
    expect(tensors["lm_head.weight"]).toEqual(rowsOf("abcd", 2));
    expect(merged.notes.join()).toMatch(/3 \("a", "b", "c"\) tokens have other ids there: rows are moved/);
  },
);

test("unlike vocabularies are refused with what differs, or the base's is kept", async () => {
  const base = await speaker("base", ["a", "b", "c"]);
  const one = await speaker("one", ["x", "b", "a", "y"], { shift: 2 });
  const unlike =
    /it lacks 1 \("c"\) of its tokens and has 2 \("x", "y"\) more; `train-merge merge --tokenizer base` keeps/;
  await expect(merge([one], { base })).rejects.toThrow(unlike);
  const merged = await merge([one], { base, tokenizer: "base" });
  // c is as the base has it.
  expect((await merged.tensors())["model.embed_tokens.weight"]).toEqual([
    ...rowsOf("ab", 2),
    ...rowsOf("c", 0),
  ]);
  expect(merged.notes.join()).toMatch(
    /it lacks 1 \("c"\) tokens, which are as the base has them, and 2 .* are left out/,
  );
  const file = (more: string) => `merge_method: task_arithmetic
base_model: ${base}
models: [{model: ${one}, parameters: {weight: 1}}]
${more}`;
  await expect(byFile(file(""))).rejects.toThrow(unlike);
  const kept = await byFile(file("tokenizer_source: base"));
  expect(await kept.tensors()).toEqual(await merged.tensors());
});

test("padded rows stay where they are, and more of them in one model are no other vocabulary", async () => {
  const base = await speaker("base", ["a", "b"], { padding: 2 });
  const one = await speaker("one", ["b", "a"], { shift: 2, padding: 3 });
  const tensors = await (await merge([one], { base })).tensors();
  expect(tensors["model.embed_tokens.weight"]).toEqual([...rowsOf("ab", 2), 2, 20, 2, 20]);
});

test("one tokenizer, and tables that are padded to other sizes: the tokens' rows are merged", async () => {
  const base = await speaker("base", ["a", "b"], { padding: 2 });
  const shorter = await speaker("one", ["a", "b"], { shift: 2 });
  const longer = await speaker("two", ["a", "b"], { shift: 4, padding: 5 });
  const rows = async (one: string): Promise<number[] | undefined> =>
    (await (await merge([one], { base })).tensors())["model.embed_tokens.weight"];
  // What it has not is as the base has it.
  expect(await rows(shorter)).toEqual([...rowsOf("ab", 2), 0, 0, 0, 0]);
  expect(await rows(longer)).toEqual([...rowsOf("ab", 4), 4, 40, 4, 40]);
});

test("a tied model's rows are moved under both names of its table", async () => {
  const tied = {
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    hidden_size: 2,
    tie_word_embeddings: true,
  };
  const speak = async (name: string, tokens: string[], shift: number, head: boolean): Promise<string> => {
    const table = rowsOf(tokens.join(""), shift);
    const folder = await model(
      name,
      {
        "model.embed_tokens.weight": [[2, 2], ...table],
        "model.layers.0.q.weight": [[2], shift, 1],
        ...(head && { "lm_head.weight": [[2, 2], ...table] }),
      },
      { ...tied, tie_word_embeddings: !head },
    );
    const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
    await writeFile(join(folder, "tokenizer.json"), JSON.stringify({ model: { vocab } }));
    return folder;
  };
  const base = await speak("base", ["a", "b"], 0, true);
  const one = await speak("one", ["b", "a"], 2, false);
  const tensors = await (await merge([one], { base })).tensors();
  expect(tensors["model.embed_tokens.weight"]).toEqual(rowsOf("ab", 2));
  expect(tensors["lm_head.weight"]).toEqual(rowsOf("ab", 2));
});

test("one tokenizer, or none, changes nothing and says nothing", async () => {
  const [base, one] = [await speaker("base", ["a", "b"]), await speaker("one", ["a", "b"], { shift: 1 })];
  expect((await merge([one], { base })).notes).toEqual([]);
  const bare = await model("bare", {
    "model.embed_tokens.weight": [[2, 2], 1, 2, 3, 4],
    "model.layers.0.q.weight": [[2], 0, 1],
    "lm_head.weight": [[2, 2], 1, 2, 3, 4],
  });
  const { tensors } = await merge([bare], { base });
  expect((await tensors())["model.embed_tokens.weight"]).toEqual([1, 2, 3, 4]);
});

test.each([
  ["a number that is none", { model: { vocab: { a: 0.5 } } }],
  ["one below 0", { model: { vocab: { a: 0 } }, added_tokens: [{ id: -1, content: "b" }] }],
  ["one that is no row of any table", { model: { vocab: { a: 1e9 } } }],
])("ids: %s is refused", async (_, tokenizer) => {
  const [base, one] = [await speaker("base", ["a", "b"]), await speaker("one", ["a", "b"])];
  await writeFile(join(one, "tokenizer.json"), JSON.stringify(tokenizer));
  await expect(merge([one], { base })).rejects.toThrow(
    /tokenizer\.json: .*it is no list of tokens with whole numbers/,
  );
});

test("sentencepiece models that differ are refused, equal ones are one", async () => {
  const models = ["base", "one"].map((name, i) =>
    model(name, { "embed_tokens.weight": [[1, 2], i, 1], "q.weight": [[2], i, i] }),
  );
  const [base, one] = (await Promise.all(models)) as [string, string];
  for (const folder of [base, one]) await writeFile(join(folder, "tokenizer.model"), "the same");
  expect((await merge([one], { base })).notes.join()).not.toMatch(/token/);
  await writeFile(join(one, "tokenizer.model"), "another");
  await expect(merge([one], { base })).rejects.toThrow(/its tokenizer\.model is not that of/);
});

test("tables with moved rows read alike whole and in parts", async () => {
  const [base, one] = await Promise.all(
    [
      await speaker("base", ["a", "b", "c", "d"]),
      await speaker("one", ["d", "x", "a", "c"], { shift: 2 }),
    ].map((folder) => openMember("m", folder, (name) => name)),
  );
  const { members } = await withOneVocabulary([one!], base!, "base");
  const { checkpoint } = members[0]!;
  const whole = await checkpoint.read("model.embed_tokens.weight");
  const values = [...rowsOf("a", 2), ...rowsOf("b", 0), ...rowsOf("cd", 2)];
  expect([...toFloat32(whole)]).toEqual(values);
  for (const [from, to] of [
    [0, 8],
    [3, 4],
    [1, 7],
  ] as const) {
    const bytes = await checkpoint.readRange("model.embed_tokens.weight", 4 * from, 4 * (to - from));
    expect([...toFloat32({ dtype: "F32", shape: [], bytes })]).toEqual(values.slice(from, to));
  }
  await one!.checkpoint.close();
  await base!.checkpoint.close();
});

test("rows that lie side by side in one table are one reading", () => {
  const tables = [{ rows: 4 }, { rows: 0 }, { rows: 5 }];
  const read = (map: Int32Array, from: number, to: number) =>
    runsOfRows({ map, tables }, from, to).map((run) => [run.row, run.count, run.table, run.from]);
  expect(read(Int32Array.of(2, 3, 4, 5, 8, 7, 0, 0), 0, 8)).toEqual([
    [0, 2, 0, 2],
    [2, 2, 2, 0],
    [4, 1, 2, 4],
    [5, 1, 2, 3],
    [6, 1, 0, 0],
    [7, 1, 0, 0],
  ]);
  expect(read(Int32Array.of(4, 5, 6), 1, 3)).toEqual([[1, 2, 2, 1]]);
});

/** A model of some tensors, with the tokens of a tokenizer.json. */
async function named(
  name: string,
  tensors: Record<string, number[][]>,
  tokens: string,
  config: object = {},
): Promise<string> {
  const stored = Object.fromEntries(
    Object.entries(tensors).map(
      ([key, rows]) => [key, [[rows.length, rows[0]!.length], ...rows.flat()]] as const,
    ),
  );
  const folder = await model(
    name,
    { ...stored, "layers.0.q.weight": [[2], 1, 1] },
    { model_type: "other", ...config },
  );
  const vocab = Object.fromEntries(tokens.split("").map((token, id) => [token, id]));
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify({ model: { vocab } }));
  return folder;
}
const table = (tokens: string, shift: number): number[][] =>
  tokens.split("").map((token) => [token.charCodeAt(0) + shift, 1]);

test.each([
  "model.decoder.embed_tokens.weight",
  "model.embeddings.tok_embeddings.weight",
  "backbone.embeddings.weight",
  "transformer.word_embedding.weight",
  "tok_embeddings.weight",
])("%s is a table of tokens", async (name) => {
  const base = await named("base", { [name]: table("abc", 0) }, "abc");
  const one = await named("one", { [name]: table("cab", 2) }, "cab");
  expect((await (await merge([one], { base })).tensors())[name]).toEqual(table("abc", 2).flat());
});

test("every tensor with a row a token is moved, or the merge is refused by its name", async () => {
  const all = (tokens: string, shift: number) => ({
    "shared.weight": table(tokens, shift),
    "encoder.embed_tokens.weight": table(tokens, shift),
    "cls.predictions.decoder.weight": table(tokens, shift),
  });
  const [base, one] = [await named("base", all("abc", 0), "abc"), await named("one", all("cab", 2), "cab")];
  const tensors = await (await merge([one], { base })).tensors();
  for (const name of Object.keys(all("", 0))) expect(tensors[name], name).toEqual(table("abc", 2).flat());
  const strange = (tokens: string, shift: number) => ({
    ...all(tokens, shift),
    "extra.rows": table(tokens, shift),
  });
  const [other, another] = [
    await named("base", strange("abc", 0), "abc"),
    await named("one", strange("cab", 2), "cab"),
  ];
  await expect(merge([another], { base: other })).rejects.toThrow(
    /"extra\.rows" \[3, 2\] may have a row a token/,
  );
  const [none, noneToo] = [await named("base", {}, "abc"), await named("one", {}, "cab")];
  await expect(merge([noneToo], { base: none })).rejects.toThrow(
    /it has no table of embeddings that is known/,
  );
});

test("a table that has no row for one of its tokens is refused", async () => {
  const name = "model.embed_tokens.weight";
  const base = await named("base", { [name]: table("abc", 0) }, "abc");
  const short = await named("one", { [name]: table("c", 2) }, "cab");
  await expect(merge([short], { base })).rejects.toThrow(/has 1 rows, and its tokenizer gives "a" the id 1/);
});

test("without a tokenizer of the base, unlike ones of the others are refused", async () => {
  const name = "model.embed_tokens.weight";
  const bare = await model(
    "bare",
    { [name]: [[3, 2], 1, 2, 3, 4, 5, 6], "layers.0.q.weight": [[2], 0, 1] },
    { model_type: "other" },
  );
  const [one, two] = [
    await named("one", { [name]: table("abc", 1) }, "abc"),
    await named("two", { [name]: table("cab", 2) }, "cab"),
  ];
  await expect(merge([one, two], { base: bare })).rejects.toThrow(
    /its tokens are not those of .*put its tokenizer\.json beside it/,
  );
  const same = await named("three", { [name]: table("abc", 3) }, "abc");
  await merge([one, same], { base: bare });
});

test("tokens that were added to a slow tokenizer count", async () => {
  const base = await speaker("base", ["a", "b"], { list: "vocab.json" });
  const one = await speaker("one", ["a", "b"], { shift: 2, list: "vocab.json" });
  await writeFile(join(base, "vocab.json"), JSON.stringify({}));
  await writeFile(join(one, "vocab.json"), JSON.stringify({}));
  await writeFile(join(base, "added_tokens.json"), JSON.stringify({ a: 0, b: 1 }));
  await writeFile(join(one, "added_tokens.json"), JSON.stringify({ b: 0, a: 1 }));
  // What was a's row is b's there.
  expect((await (await merge([one], { base })).tensors())["model.embed_tokens.weight"]).toEqual([
    ...rowsOf("b", 2),
    ...rowsOf("a", 2),
  ]);
});
