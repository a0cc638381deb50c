/** mergekit's files as people write them. */
import { existsSync } from "node:fs";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { body, byFile, expected, fresh, model, type Merged, type Tensors } from "../mergers/small.js";

const two = async (): Promise<[a: string, b: string]> => [
  await model("a", body(1)),
  await model("b", body(3)),
];
const halves = (a: string, b: string, more = ""): string =>
  [
    "merge_method: linear",
    "models:",
    `- {model: ${a}, parameters: {weight: 1}}`,
    `- {model: ${b}, parameters: {weight: 1}}`,
    more,
  ].join("\n");
const mean = async (merged: Merged): Promise<void> => expect(await merged.tensors()).toEqual(expected(2));

test.each([
  ["a type with torch's name", () => "dtype: torch.float32\nout_dtype: torch.float32"],
  ["a name", () => "name: my-merge"],
  ["the base as the tokenizer's source, by word", () => "tokenizer_source: base"],
  ["the base as the tokenizer's source, by name", (a: string) => `tokenizer_source: ${a}`],
  ["a tokenizer's source in its own block", (a: string) => `tokenizer: {source: {model: {path: ${a}}}}`],
  ["nothing where something may stand", () => "base_model:\nparameters:\n"],
])("%s", async (_, more) => {
  const [a, b] = await two();
  await mean(await byFile(halves(a, b, more(a))));
});

test("models in the long form: a path, a revision, of which a folder has none", async () => {
  const [a, b] = await two();
  const long = `merge_method: linear
models:
- model: {model: {path: ${a}, revision: main}, override_architecture: null}
  parameters: {weight: 1}
- model: {model: ${b}@v1}
  parameters: {weight: 1}`;
  await mean(await byFile(long));
});

test("anchors, and the keys of another mapping", async () => {
  const [a, b] = await two();
  const merged = await byFile(`merge_method: linear
models:
- &first
  model: ${a}
  parameters: {weight: 1}
- <<: *first
  model: ${b}`);
  await mean(merged);
});

test("no is false, as in YAML 1.1, and a model may be called e1", async () => {
  const [a, b] = await two();
  const sum = await byFile(halves(a, b, "parameters: {normalize: no}"));
  expect(await sum.tensors()).toEqual(expected(4));
  const folder = fresh("named");
  await mkdir(folder);
  await symlink(a, join(folder, "e1"));
  const file = join(folder, "m.yml");
  await writeFile(file, halves("e1", b));
  const { mergeByMergekitFile } = await import("../../src/mergers/mergekit-file.js");
  const silent = { note() {}, progress() {}, stopping: () => false };
  await mergeByMergekitFile(file, { out: fresh("out"), shardSize: 1e9, threads: 0, seed: 0 }, silent);
});

test("one module is what stands in it; its parameters are more particular than the file's", async () => {
  const [a, b] = await two();
  const plain = `merge_method: linear
modules:
  default:
    models: [{model: ${a}}, {model: ${b}}]
    parameters: {weight: [{filter: embed, value: 1}]}
parameters: {weight: 2, normalize: false}`;
  expect(await (await byFile(plain)).tensors()).toEqual({
    "embed.weight": [4, 4, 4, 4],
    "layers.0.q.weight": [8, 16],
  });
  await expect(byFile(`${halves(a, b)}slices: []`)).rejects.toThrow(/slices/);
});

test("several modules are merged each in its own way", async () => {
  const tensors = (x: number): Tensors => ({
    "model.embed_tokens.weight": [[2], x, x],
    "model.layers.0.q.weight": [[2], x, 2 * x],
    "model.layers.1.q.weight": [[2], 3 * x, 4 * x],
    "visual.blocks.0.q.weight": [[1], 5 * x],
    "visual.merger.mlp.0.weight": [[1], 6 * x],
  });
  const [a, b] = await Promise.all([model("a", tensors(1)), model("b", tensors(3))]);
  const text = "text_decoder: {models: [{model: A}, {model: B}]}";
  const sliced =
    "text_decoder: {slices: [{sources: [{model: A, layer_range: [1, 2]}]}, " +
    "{sources: [{model: B, layer_range: [0, 2]}]}]}";
  const vision = "vision_tower: {models: [{model: B}]}";
  const projector = "multi_modal_projector: {models: [{model: A}, {model: B}], parameters: {weight: [0.25]}}";
  const modules = (...parts: string[]) =>
    `merge_method: linear\nmodules:\n  ${parts.join("\n  ")}\nparameters: {weight: 0.5, normalize: false}\n`.replace(
      /\b[AB]\b/g,
      (letter) => (letter === "A" ? a : b),
    );
  expect(await (await byFile(modules(text, vision, projector))).tensors()).toEqual({
    "model.embed_tokens.weight": [2, 2],
    "model.layers.0.q.weight": [2, 4],
    "model.layers.1.q.weight": [6, 8],
    "visual.blocks.0.q.weight": [7.5],
    "visual.merger.mlp.0.weight": [6],
  });
  expect(await (await byFile(modules(sliced, vision, projector))).tensors()).toMatchObject({
    "model.layers.0.q.weight": [1.5, 2],
    "model.layers.1.q.weight": [1.5, 3],
    "model.layers.2.q.weight": [4.5, 6],
    "visual.blocks.0.q.weight": [7.5],
  });
  for (const [parts, message] of [
    [
      ["encodr: {models: [{model: A}]}"],
      /line 2: modules: module encodr is not known \(did you mean "encoder"\?\)/,
    ],
    [[vision], /tensors are in none of its modules/],
    [["default: {models: [{model: A}]}", vision], /default is all of the model/],
    [[text, vision], /line 2: modules: 1 tensors are in none of its modules: visual\.merger\.mlp\.0\.weight/],
    [
      [text, vision, "audio_tower: {models: [{model: A}]}"],
      /line 2: modules: module audio_tower is not known/,
    ],
    [
      [text, vision, projector, "vision_model: {models: [{model: A}]}"],
      /module vision_model names a part that another/,
    ],
    [
      [text, projector, "vision_tower: {slices: [{sources: [{model: A, layer_range: [0, 1]}]}]}"],
      /vision_tower: a module other than the text decoder takes models, not slices/,
    ],
  ] as const)
    await expect(byFile(modules(...parts))).rejects.toThrow(message);
});

test("a chat template: the models' own, a named one, or one that stands in the file", async () => {
  const [a, b] = await two();
  const c = await model("c", body(3));
  const give = (folder: string, template: unknown) =>
    writeFile(join(folder, "tokenizer_config.json"), JSON.stringify({ chat_template: template, keep: 1.5 }));
  await give(a, "{{ of_a }}");
  await give(b, [
    { name: "tools", template: "{{ tools }}" },
    { name: "default", template: " {{ of_b }}\n" },
  ]);
  await writeFile(join(c, "tokenizer_config.json"), "{}");
  await writeFile(join(c, "chat_template.jinja"), "{{ of_b }}");
  const templateOf = async (asked: string, more = "") => {
    const models = `models: [{model: ${a}}, {model: ${b}}${more}]`;
    const { out, json } = await byFile(
      `merge_method: linear\nparameters: {weight: 1}\n${models}\nchat_template: ${asked}`,
    );
    const text = await readFile(join(out, "chat_template.jinja"), "utf8");
    expect(await json("tokenizer_config.json")).toEqual({ chat_template: text, keep: 1.5 });
    return text;
  };
  expect(await templateOf("auto")).toBe("{{ of_a }}");
  expect(await templateOf("auto", `, {model: ${c}}`)).toBe("{{ of_b }}");
  expect(await templateOf("chatml")).toContain("<|im_start|>");
  expect(await templateOf('"{% for message in messages %}{% endfor %}"')).toBe(
    "{% for message in messages %}{% endfor %}",
  );
  // Without a tokenizer there is nothing that it could belong to.
  const bare = await two();
  expect(await (await byFile(halves(...bare, "chat_template: auto"))).tensors()).toBeDefined();
});

test("what a file does not look at is refused or said", async () => {
  const [a, b] = await two();
  const { notes } = await byFile(halves(a, b, "layer_range: [0, 1]"));
  expect(notes.join("\n")).toMatch(/line 5: layer_range is passed over/);
  const templated = await byFile(halves(a, b, "chat_template: chatml"));
  expect(templated.notes.join("\n")).toMatch(
    /line 5: chat_template: it is not written: there is no tokenizer/,
  );
});

test("float64 is said to be float32, and parameters that no method has are passed over", async () => {
  const [a, b] = await two();
  const { notes, out } = await byFile(
    halves(a, b, "dtype: torch.float64\nparameters: {interference: cosine}"),
  );
  expect(notes.join("\n")).toMatch(/line 5: dtype: float64 is computed and written as float32/);
  expect(notes.join("\n")).toMatch(/line 6: parameter interference is passed over, as mergekit does/);
  const file = await openSafetensors(join(out, "model.safetensors"));
  expect(file.entry("embed.weight").dtype).toBe("F32");
  await file.close();
});

test("a key that stands twice counts as it last stands, and keys that mergekit passes over are said", async () => {
  const [a, b] = await two();
  const merged = await byFile(
    halves(a, b, "comment: mine\nparameters: {normalize: false}\nparameters: {normalize: true}"),
  );
  await mean(merged);
  expect(merged.notes.join("\n")).toMatch(/line 5: comment is passed over, as mergekit does/);
  expect(merged.notes.join("\n")).toMatch(/line 7: the key stands twice; the last counts/);
  expect(await merged.json("merge.json")).toMatchObject({
    notes: expect.arrayContaining([expect.stringMatching(/comment/)]) as unknown,
  });
});

test.each([
  ["a misspelled key", "paramters: {normalize: false}", /line 5: paramters: .*did you mean "parameters"/],
  ["a key of a type that it has not", "dtype: [float32]", /line 5: dtype: /],
  ["a type that is none", "dtype: float8", /dtype float8 is not supported/],
  [
    "a chat template that is none",
    "chat_template: chatm",
    /line 5: chat_template chatm is no template.*chatml/,
  ],
  [
    "two that say one thing",
    "tokenizer_source: union\ntokenizer: {source: union}",
    /line 5: give one of tokenizer_source and tokenizer/,
  ],
  [
    "a token's row by number and by name",
    "tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token: b, token_id: 2}}}}",
    /line 5: tokenizer.tokens.x.source: give one of token and token_id/,
  ],
  [
    "a kind of row that there is not",
    "tokenizer: {tokens: {x: {source: {kind: mean}}}}",
    /line 5: tokenizer/,
  ],
  ["all tokens, where nobody lists them", "tokenizer_source: union", /it has no list of tokens/],
])("%s is refused, with its line", async (_, more, message) => {
  const [a, b] = await two();
  await expect(byFile(halves(a, b, more))).rejects.toThrow(message);
});

test("values out of range are refused in the file's own words, with their line", async () => {
  const [a, b] = await two();
  const dare = `merge_method: dare_ties
base_model: ${a}
models:
- model: ${b}
  parameters: {weight: 1, density: 53}`;
  await expect(byFile(dare)).rejects.toThrow(/line 5: density 53: it must be from 0 to 1$/);
  const cancel = halves(a, b).replace("weight: 1}}\n- ", "weight: -1}}\n- ");
  await expect(byFile(cancel)).rejects.toThrow(/line 3: the weights -1, 1 add up to 0.*normalize: false/);
});

test("several documents: those with names are merged first, wherever they stand", async () => {
  const [a, b] = await two();
  const documents = `merge_method: linear
models: [{model: first, parameters: {weight: 1}}, {model: second, parameters: {weight: 1}}]
---
name: second
merge_method: passthrough
models: [{model: first, parameters: {scale: 2}}]
---
name: first
${halves(a, b)}`;
  const merged = await byFile(documents);
  expect(await merged.tensors()).toEqual(expected(3));
  expect(existsSync(`${merged.out}.parts`)).toBe(false);
  const circle = documents.replace("model: first, parameters: {scale", "model: second, parameters: {scale");
  await expect(byFile(circle)).rejects.toThrow(/second: it is made from itself/);
  await expect(byFile(documents.replace("name: second\n", ""))).rejects.toThrow(
    /all but one must have a name/,
  );
  await expect(byFile("")).rejects.toThrow(/the file is empty|not a mergekit file/);
});

test("what stands in the output is touched when all documents are merged, and not before", async () => {
  const [a, b] = await two();
  const wide = await model("wide", { ...body(1), "embed.weight": [[3, 2], 1, 2, 3, 4, 5, 6] });
  const documents = (last: string): string =>
    `name: first\n${halves(a, b)}\n---\nmerge_method: linear\n` +
    `models: [{model: first, parameters: {weight: 1}}, {model: ${last}, parameters: {weight: 1}}]`;
  const { out, ...merged } = await byFile(documents(b));
  const tensors = await merged.tensors();
  const refused = expect(byFile(documents(a), { out })).rejects;
  await refused.toThrow(/it holds a finished result; --overwrite replaces it/);
  await expect(byFile(documents(wide), { out, overwrite: true })).rejects.toThrow(/embed\.weight/);
  await expect(byFile(documents("nowhere"), { out, overwrite: true })).rejects.toThrow(/no such folder/);
  expect(await merged.tensors()).toEqual(tensors);
  expect(existsSync(`${out}.parts`)).toBe(false);
});

afterEach(() => vi.unstubAllEnvs());

test("ids of the hub are looked up in its cache", async () => {
  const [a, b] = await two();
  const home = fresh("hub");
  const commit = "0123456789abcdef0123456789abcdef01234567";
  for (const [name, folder] of [
    ["one", a],
    ["other", b],
  ] as const) {
    const cache = join(home, "hub", `models--acme--${name}`);
    await mkdir(join(cache, "refs"), { recursive: true });
    await mkdir(join(cache, "snapshots"), { recursive: true });
    await writeFile(join(cache, "refs", "main"), commit);
    await symlink(folder, join(cache, "snapshots", commit));
  }
  vi.stubEnv("HF_HOME", home);
  vi.stubEnv("HF_HUB_OFFLINE", "1");
  const merged = await byFile(halves("acme/one", "acme/other@main"));
  await mean(merged);
  expect(merged.notes.join("\n")).toContain(`acme/one: commit ${commit}`);
  await expect(byFile(halves("acme/one", "acme/third"))).rejects.toThrow(
    /acme\/third@main: it is not in the cache/,
  );
  await expect(byFile(halves("acme/one", "nowhere"))).rejects.toThrow(
    /there is no such folder here or beside the file/,
  );
});
