/** A merge is right, or it is refused: the kinds of inputs that people merge, as models of a few numbers. */
import { existsSync, readdirSync, utimesSync } from "node:fs";
import { cp, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { expect, test } from "vitest";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { findMethod } from "../../src/methods/index.js";
import { mergeFolders } from "../../src/mergers/models.js";
import { packageFolder } from "../../src/package.js";
import { toFloat32 } from "../../src/tensor/dtype.js";
import { expectSameBytes, relativeError } from "../helpers.js";
import {
  fresh,
  type Tensor,
  type Tensors,
  bytesOf,
  weights,
  llama,
  model,
  adapter,
  merge,
  byFile,
  linear,
  body,
  under,
  expected,
} from "./small.js";

test.each([
  ["the expert's head class", "", "model."],
  ["the base's head class", "model.", ""],
  ["another backbone's word", "", "transformer."],
  ["DistributedDataParallel", "model.", "module.model."],
  ["torch.compile", "model.", "_orig_mod.model."],
  ["both, on the base", "module._orig_mod.", ""],
])("a prefix of %s before names is no other model", async (_, ofBase, ofExpert) => {
  const base = await model("base", under(ofBase, body(1)));
  const expert = await model("expert", under(ofExpert, body(3)));
  expect(await (await merge([expert], { base })).tensors()).toEqual(expected(3, ofBase));
  const average = await merge([base, expert], { method: "average" });
  expect(await average.tensors()).toEqual(expected(2, ofBase));
  const file = linear(base, expert);
  expect(await (await byFile(file)).tensors()).toEqual(expected(2, ofBase));
});

test("heads of one model are left out, and said; a layer without a partner is refused", async () => {
  const base = await model("base", body(1));
  const headed = await model("headed", { ...under("model.", body(2)), "score.weight": [[1], 5] });
  const merged = await merge([headed], { base });
  expect(await merged.tensors()).toEqual(expected(2));
  expect(merged.notes).toContain("1 tensor is left out, which the base does not have: score.weight");

  const deeper = await model("deeper", { ...body(2), "layers.1.q.weight": [[2], 7, 7] });
  await expect(merge([deeper], { base })).rejects.toThrow(
    /^1 tensor has no partner in the base: "layers\.1\.q\.weight".*--allow-partial/,
  );
  await expect(merge([base], { base: deeper })).rejects.toThrow(
    /^1 of 3 tensors cannot be merged: "layers\.1\.q\.weight" \(\S+ has none\)/,
  );
  const allowed = await merge([deeper], { base, allowPartial: true });
  expect(await allowed.tensors()).toEqual(expected(2));
  expect((await allowed.json("merge.json"))["notes"]).toContainEqual(
    expect.stringMatching(/layers\.1\.q\.weight/),
  );
  expect(await readFile(join(allowed.out, "README.md"), "utf8")).toMatch(/## Notes[^]*layers\.1\.q\.weight/);
});

test.each<[string, Tensors, RegExp]>([
  ["of another shape", { ...body(2), "layers.0.q.weight": [[3], 1, 1, 1] }, /expert's is \[3\], not \[2\]/],
  [
    "that ZeRO-3 left empty",
    { ...body(2), "layers.0.q.weight": [[0]] },
    /is empty, \[0\], as DeepSpeed's ZeRO-3/,
  ],
  [
    "of whole numbers",
    { ...body(2), "layers.0.q.weight": { dtype: "I32", shape: [2], bytes: new Uint8Array(8) } },
    /expert's is I32/,
  ],
])("a weight %s is refused", async (_, tensors, why) => {
  const base = await model("base", body(1));
  const expert = await model("expert", tensors);
  await expect(merge([expert], { base })).rejects.toThrow(why);
  const file = linear(base, expert);
  await expect(byFile(file)).rejects.toThrow(/--allow-partial/);
});

test("a merge that is refused leaves what an earlier one wrote, and no folder where there was none", async () => {
  const [base, expert] = [await model("base", body(1)), await model("expert", body(3))];
  const { out, tensors } = await merge([expert], { base });
  const deeper = await model("deeper", { ...body(2), "layers.1.q.weight": [[2], 7, 7] });
  const unlike = await model("unlike", body(2), { ...llama, model_type: "bert" });
  const never = fresh("never");
  for (const models of [[deeper], [unlike]]) {
    await expect(merge(models, { base, out })).rejects.toThrow(/--allow-/);
    expect(await tensors()).toEqual(expected(3));
    expect(existsSync(join(out, "README.md"))).toBe(true);
    await expect(merge(models, { base, out: never })).rejects.toThrow(/--allow-/);
    expect(existsSync(never)).toBe(false);
  }
});

test("another architecture is refused, or let through and written down", async () => {
  const base = await model("base", body(1));
  const other = await model("other", body(2), { ...llama, rope_theta: 5e6, model_type: "qwen2" });
  await expect(merge([other], { base })).rejects.toThrow(/model_type "qwen2".*"llama".*--allow-mismatch/);
  const allowed = await merge([other], { base, allowMismatch: true });
  expect((await allowed.json("merge.json"))["notes"]).toContainEqual(expect.stringMatching(/"qwen2"/));
  const file = linear(base, other);
  await expect(byFile(file)).rejects.toThrow(/--allow-mismatch/);
  expect(await (await byFile(file, { allowMismatch: true })).tensors()).toEqual(expected(1.5));
});

test("an expert that is the base, or that stands out, is told, and refused under --strict", async () => {
  const base = await model("base", body(1));
  const [near, same, far] = [
    await model("near", body(1.01)),
    await model("same", body(1)),
    await model("far", body(9)),
  ];
  expect((await merge([near], { base })).notes).toEqual([]);
  const told = await merge([near, same, far], { base });
  expect(told.notes).toEqual([
    expect.stringMatching(/same.* is the base itself/),
    expect.stringMatching(/far.*task vector is 800 % as large/),
  ]);
  // Where they lie is the user's own: the record has their names.
  expect((await told.json("merge.json"))["notes"]).toEqual(
    told.notes.map((line) => line.replace(/^\S+\//, "")),
  );
  await expect(merge([near, same], { base, strict: true })).rejects.toThrow(
    /^--strict: .*is the base itself/,
  );
  const twice = await merge([near, await model("again", body(1.01))], { base });
  expect(twice.notes).toEqual([expect.stringMatching(/again.* and .*near.* are one model/)]);
});

const numbers = (values: number[], name = "w"): Tensors => ({ [name]: [[values.length], ...values] });
test("numbers are looked at on their way out", async () => {
  const [base, large] = [await model("base", numbers([1, 2])), await model("large", numbers([1, 90000]))];
  await expect(merge([large], { base, dtype: "F16" })).rejects.toThrow(
    /^"w": the merge gives 90000, which is infinity in float16.*at entry 1$/,
  );
  expect(await (await merge([large], { base })).tensors()).toEqual({ w: [1, 90000] });
  const huge = await model("huge", numbers([1, 3e38]));
  await expect(merge([huge, huge], { base })).rejects.toThrow(/^"w": the merge gives Infinity at entry 1$/);
  const [variance, smaller] = [
    await model("base", numbers([1, 0.5], "bn.running_var")),
    await model("expert", numbers([1, 0.1], "bn.running_var")),
  ];
  await expect(merge([smaller, smaller], { base: variance })).rejects.toThrow(/running variance below 0/);
  expect(await (await merge([smaller], { base: variance })).tensors()).toEqual({
    "bn.running_var": [1, expect.closeTo(0.1, 6)],
  });
});

test("what is infinite in all models is kept; in one of them it is damage", async () => {
  const masked = (x: number): Tensors => ({ w: [[2], x, x], mask: [[3], 0, -Infinity, -Infinity] });
  const base = await model("base", masked(1));
  const expert = await model("expert", masked(3));
  for (const method of ["task-arithmetic", "ties"])
    expect((await (await merge([expert], { base, method })).tensors())["mask"]).toEqual([
      0,
      -Infinity,
      -Infinity,
    ]);
  const broken = await model("broken", { w: [[2], 3, 3], mask: [[3], 0, -Infinity, 0] });
  await expect(merge([broken], { base })).rejects.toThrow(/"mask" holds -Infinity at entry 2/);
  const nan = await model("nan", { w: [[2], 3, NaN], mask: [[3], 0, -Infinity, -Infinity] });
  await expect(merge([nan], { base })).rejects.toThrow(/expert|nan.*"w" holds NaN at entry 1/);
});

test("float64 is a float, and types that are only copied are", async () => {
  const doubles = (...values: number[]): Tensor => ({
    dtype: "F64",
    shape: [values.length],
    bytes: new Uint8Array(Float64Array.from(values).buffer),
  });
  const scale: Tensor = { dtype: "F8_E8M0", shape: [3], bytes: Uint8Array.of(1, 2, 3) };
  const four: Tensor = { dtype: "F4", shape: [4], bytes: Uint8Array.of(1, 2) };
  const base = await model("base", { w: doubles(1, 2), scale, four });
  const expert = await model("expert", { w: doubles(3, 5), scale, four });
  const merged = await merge([expert], { base });
  const file = await openSafetensors(join(merged.out, "model.safetensors"));
  expect([...toFloat32(await file.read("w"))]).toEqual([3, 5]);
  expect(await file.read("scale")).toEqual(bytesOf(scale));
  expect(await file.read("four")).toEqual(bytesOf(four));
  await file.close();
});

const table = (x: number): Tensors => ({
  "model.embed_tokens.weight": [[2, 1], x, 2 * x],
  "model.norm.weight": [[1], x],
});
const head = (x: number): Tensors => ({ "lm_head.weight": [[2, 1], x, x] });
test("tied and untied models are merged as what they are", async () => {
  const [untied, tied] = [
    { ...llama, tie_word_embeddings: false },
    { ...llama, tie_word_embeddings: true },
  ];
  // A tied expert's output layer is its table.
  const base = await model("base", { ...table(1), ...head(4) }, untied);
  const expert = await model("expert", table(3), tied);
  expect((await (await merge([expert], { base })).tensors())["lm_head.weight"]).toEqual([3, 6]);
  // A copy beside a tied table is no tensor of its own.
  const copy = { "lm_head.weight": table(1)["model.embed_tokens.weight"]! };
  const copied = await model("copied", { ...table(1), ...copy }, tied);
  expect(Object.keys(await (await merge([expert], { base: copied })).tensors())).toEqual(
    Object.keys(table(1)),
  );
  // One that differs is, whatever the config says: transformers 5 does not tie it.
  const unlike = await model("unlike", { ...table(1), ...head(9) }, tied);
  await expect(merge([unlike], { base: expert })).rejects.toThrow(/lm_head\.weight" is its own.*tied/);
  expect((await (await merge([expert], { base: unlike })).tensors())["lm_head.weight"]).toEqual([3, 6]);
  // An output layer of its own has no place in a tied result.
  await expect(merge([base], { base: expert })).rejects.toThrow(/lm_head\.weight" is its own.*tied/);
  // A backbone has none.
  const backbone = await model("backbone", table(3), { ...llama, architectures: ["LlamaModel"] });
  expect((await (await merge([backbone], { base })).tensors())["lm_head.weight"]).toEqual([4, 4]);
});

test.each<[string, (folder: string) => Promise<unknown>, RegExp]>([
  [
    "a Trainer's",
    (f) => Promise.all([9, 20].map((n) => mkdir(join(f, `checkpoint-${n}`)))),
    /Trainer.*checkpoint-20$/,
  ],
  ["a DeepSpeed", (f) => mkdir(join(f, "global_step8")), /DeepSpeed checkpoint.*zero_to_fp32/],
  ["a diffusers", (f) => writeFile(join(f, "model_index.json"), "{}"), /diffusers pipeline/],
  ["a GGUF", (f) => writeFile(join(f, "m-q4.gguf"), ""), /GGUF/],
  ["an adapter's", (f) => writeFile(join(f, "adapter_config.json"), "{}"), /an adapter/],
  ["a TensorFlow", (f) => writeFile(join(f, "tf_model.h5"), ""), /another library/],
  ["an empty", async () => {}, /is it a Hugging Face model folder/],
])("%s folder in place of a base is said to be one", async (_, fill, message) => {
  const folder = fresh("folder");
  await mkdir(folder);
  await fill(folder);
  await writeFile(join(folder, "config.json"), "{}");
  await expect(merge([await model("expert", body(1))], { base: folder })).rejects.toThrow(message);
});

test("a pointer of Git LFS, and two saves in one folder, are said to be such", async () => {
  const [base, expert] = [await model("base", body(1)), await model("expert", body(2))];
  const stale = join(expert, "model.safetensors.index.json");
  await writeFile(
    stale,
    JSON.stringify({ weight_map: { "embed.weight": "model-00001-of-00002.safetensors" } }),
  );
  // The shards are gone: the one file is the model.
  expect(await (await merge([expert], { base })).tensors()).toEqual(expected(2));
  await weights(join(expert, "model-00001-of-00002.safetensors"), body(9));
  await expect(merge([expert], { base })).rejects.toThrow(/two saves, model\.safetensors and .*index\.json/);
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${"0".repeat(64)}\nsize 1234\n`;
  await writeFile(join(base, "model.safetensors"), pointer);
  await expect(merge([await model("expert", body(2))], { base })).rejects.toThrow(
    /Git LFS pointer.*git lfs pull/,
  );
});

test("what stands beside the weights travels; weights, leavings and links that leave the folder do not", async () => {
  const base = await model("base", body(1), { ...llama, custom: 1 });
  const outside = fresh("secret");
  await writeFile(outside, "secret");
  for (const [path, text] of Object.entries({
    "spm.model": "spm",
    "modeling_own.py": "code",
    "chat_template.jinja": "template",
    "additional_chat_templates/tools.jinja": "tools",
    "modules.json": "[]",
    "1_Pooling/config.json": "{}",
    "2_Dense/model.safetensors": "a module's own",
    LICENSE: "licence",
    "pytorch_model.bin": "weights",
    "optimizer.pt": "state",
    "checkpoint-5/spm.model": "older",
    ".gitattributes": "lfs",
    "README.md": "the base's",
  })) {
    await mkdir(join(base, path, ".."), { recursive: true });
    await writeFile(join(base, path), text);
  }
  await symlink(outside, join(base, "stolen.json"));
  await symlink(join(base, "spm.model"), join(base, "linked.model"));
  await symlink(base, join(base, "additional_chat_templates", "round"));
  const { out } = await merge([await model("expert", body(2))], { base });
  const there = (path: string): boolean => existsSync(join(out, path));
  for (const path of [
    "spm.model",
    "modeling_own.py",
    "chat_template.jinja",
    "additional_chat_templates/tools.jinja",
  ])
    await expectSameBytes(join(out, path), join(base, path));
  expect(
    ["modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors", "LICENSE", "linked.model"].filter(
      (path) => !there(path),
    ),
  ).toEqual([]);
  expect(
    ["pytorch_model.bin", "optimizer.pt", "checkpoint-5", ".gitattributes", "stolen.json"].filter(there),
  ).toEqual([]);
  expect(await readFile(join(out, "README.md"), "utf8")).toMatch(/^---/);
});

test("a config with Infinity is read and written as it is", async () => {
  const base = await model("base", body(1));
  await writeFile(
    join(base, "config.json"),
    '{"model_type": "llama", "limit": [0, Infinity], "x": NaN, "s": "NaN"}',
  );
  const { out } = await merge([await model("expert", body(2))], { base });
  const text = (await readFile(join(out, "config.json"), "utf8")).replace(/\s+/g, " ");
  expect(text).toContain('"limit": [ 0, Infinity ]');
  expect(text).toContain('"x": NaN, "s": "NaN"');
});

const layered = (x: number, count: number, stack = "model.layers"): Tensors =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`${stack}.${i}.w`, [[1], x + i]] as const));
test("a stacked model's config counts its layers, and lists their kinds", async () => {
  const config = {
    ...llama,
    num_hidden_layers: 3,
    layer_types: ["slide", "slide", "full"],
    other: [1, 2, 3],
  };
  const [a, b] = [await model("a", layered(0, 3), config), await model("b", layered(10, 3), config)];
  const slices = (...ranges: string[]): string =>
    `merge_method: passthrough\nslices:\n${ranges
      .map((range, i) => `- sources: [{model: ${i % 2 ? b : a}, layer_range: ${range}}]\n`)
      .join("")}`;
  const merged = await byFile(slices("[0, 2]", "[1, 3]"));
  expect(await merged.tensors()).toEqual({
    "model.layers.0.w": [0],
    "model.layers.1.w": [1],
    "model.layers.2.w": [11],
    "model.layers.3.w": [12],
  });
  expect(await merged.json("config.json")).toMatchObject({
    num_hidden_layers: 4,
    layer_types: ["slide", "slide", "slide", "full"],
    other: [1, 2, 3],
  });
  await expect(byFile(slices("[2, 1]"))).rejects.toThrow(/layer_range \[2, 1\] holds no layers/);
  await expect(byFile(slices("[1, 1]"))).rejects.toThrow(/holds no layers/);
  await expect(byFile(slices("[0, 4]"))).rejects.toThrow(/has 3 layers, layer_range asks for 0 to 4/);
  const two = await model("two", { ...layered(0, 2, "encoder.block"), ...layered(0, 2, "decoder.block") });
  const sliced = `merge_method: passthrough\nslices: [{sources: [{model: ${two}, layer_range: [0, 1]}]}]`;
  await expect(byFile(sliced)).rejects.toThrow(/several stacks of layers \(encoder\.block, decoder\.block\)/);
});

test("a config within a config counts the layers that are stacked, and one that counts others does not", async () => {
  const inner = { num_hidden_layers: 3, layer_types: ["slide", "slide", "full"], rope_theta: 5 };
  const config = { ...llama, text_config: inner, vision_config: { num_hidden_layers: 7, layer_types: [1] } };
  const one = await model("one", layered(0, 3), config);
  const merged = await byFile(
    `merge_method: passthrough\nslices:\n- sources: [{model: ${one}, layer_range: [0, 3]}]\n` +
      `- sources: [{model: ${one}, layer_range: [1, 3]}]\n`,
  );
  expect(await merged.json("config.json")).toMatchObject({
    text_config: {
      num_hidden_layers: 5,
      layer_types: ["slide", "slide", "full", "slide", "full"],
      rope_theta: 5,
    },
    vision_config: { num_hidden_layers: 7, layer_types: [1] },
  });
});

test("a gradient runs over each stack of its own", async () => {
  const stacks = (x: number): Tensors => ({
    ...Object.fromEntries([0, 1, 2].map((i) => [`encoder.block.${i}.w`, [[1], x]])),
    ...Object.fromEntries([0, 1].map((i) => [`decoder.block.${i}.w`, [[1], x]])),
  });
  const [a, b] = [await model("a", stacks(0)), await model("b", stacks(1))];
  const merged = await byFile(
    "merge_method: linear\nparameters: {normalize: false}\n" +
      `models: [{model: ${a}, parameters: {weight: 1}}, {model: ${b}, parameters: {weight: [0, 1]}}]`,
  );
  expect(await merged.tensors()).toMatchObject({
    "encoder.block.0.w": [0],
    "encoder.block.1.w": [0.5],
    "encoder.block.2.w": [1],
    "decoder.block.0.w": [0],
    "decoder.block.1.w": [1],
  });
});

/** Adds 1 · [2, 0] to the first row of q, which is [2, 2]. */
const lora = (module: string): Tensors => ({
  [`${module}.lora_A.weight`]: [[1, 2], 2, 0],
  [`${module}.lora_B.weight`]: [[2, 1], 1, 0],
});
const square: Tensors = {
  "layers.0.q.weight": [[2, 2], 1, 1, 1, 1],
  "layers.0.q.bias": [[2], 5, 5],
  "embed_tokens.weight": [[3, 1], 1, 2, 3],
};
test("an adapter's biases, its names and its start belong to it", async () => {
  const base = await model("base", square);
  const one = await adapter("one", {
    ...lora("model.layers.0.q"),
    "model.layers.0.q.base_layer.bias": [[2], 6, 7],
  });
  const merged = await merge([one], { base });
  expect(await merged.tensors()).toMatchObject({
    "layers.0.q.weight": [3, 1, 1, 1],
    "layers.0.q.bias": [6, 7],
  });
  const eva = await adapter("eva", lora("layers.0.q"), { init_lora_weights: "eva" });
  expect(await (await merge([eva], { base, write: "model" })).tensors()).toMatchObject({
    "layers.0.q.weight": [3, 1, 1, 1],
    "layers.0.q.bias": [5, 5],
  });
  const olora = await adapter("olora", lora("layers.0.q"), { init_lora_weights: "olora" });
  await expect(merge([olora], { base })).rejects.toThrow(/"olora" makes it an adapter of a changed base/);
});

test("heads of adapters that the base has not are merged, where the method can and they are alike", async () => {
  const base = await model("base", square);
  const headed = (x: number, rows = 2) =>
    adapter(
      "headed",
      {
        ...lora("layers.0.q"),
        "classifier.weight": [[rows, 2], ...Array.from({ length: 2 * rows }, () => x)],
        "classifier.bias": [[rows], ...Array.from({ length: rows }, () => x)],
      },
      { task_type: "SEQ_CLS", modules_to_save: ["classifier"] },
    );
  const models = [await headed(2), await headed(4)];
  const merged = await merge(models, { base, method: "average" });
  expect(await merged.tensors("adapter_model.safetensors")).toMatchObject({
    "base_model.model.classifier.weight": [3, 3, 3, 3],
    "base_model.model.classifier.bias": [3, 3],
  });
  expect(await merged.json("adapter_config.json")).toMatchObject({
    task_type: "SEQ_CLS",
    modules_to_save: ["classifier"],
  });
  expect(merged.notes.join()).not.toMatch(/left out/);
  // Task vectors of a head that the base has not: there are none.
  const without = await merge(models, { base });
  expect(without.notes.join()).toMatch(/heads of the adapters are left out: classifier/);
  expect(await without.json("adapter_config.json")).toMatchObject({ task_type: null, modules_to_save: null });
  const unlike = await merge([models[0]!, await headed(4, 3)], { base, method: "average" });
  expect(unlike.notes.join()).toMatch(/heads of the adapters are left out/);
  expect(existsSync(join(merged.out, "products"))).toBe(false);
});

test("an adapter with a head comes out as a model, and one without asks PEFT for none", async () => {
  const base = await model("base", { ...square, "classifier.weight": [[1, 2], 1, 1] });
  const headed = await adapter(
    "headed",
    { ...lora("layers.0.q"), "classifier.modules_to_save.weight": [[1, 2], 3, 3] },
    { task_type: "SEQ_CLS", modules_to_save: ["classifier"] },
  );
  const whole = await merge([headed], { base });
  expect(existsSync(join(whole.out, "adapter_config.json"))).toBe(false);
  expect((await whole.tensors())["classifier.weight"]).toEqual([3, 3]);
  await expect(merge([headed], { base, write: "adapter" })).rejects.toThrow(
    /holds "classifier\.weight" whole/,
  );
  const bare = await adapter("bare", lora("layers.0.q"), { task_type: "SEQ_CLS" });
  const { out, json } = await merge([bare], { base });
  expect(existsSync(join(out, "adapter_model.safetensors"))).toBe(true);
  expect(await json("adapter_config.json")).toMatchObject({ task_type: null, modules_to_save: null });
});

test("what an adapter holds for another vocabulary, or for an output layer that is tied, is refused", async () => {
  const base = await model("base", square);
  const resized = await adapter("resized", {
    ...lora("layers.0.q"),
    "embed_tokens.weight": [[4, 1], 1, 2, 3, 4],
  });
  await expect(merge([resized], { base })).rejects.toThrow(
    /"embed_tokens\.weight" with \[4, 1\].*vocabulary was resized/,
  );
  const saved = await adapter("saved", { ...lora("layers.0.q"), "lm_head.weight": [[3, 1], 1, 2, 3] });
  await expect(merge([saved], { base })).rejects.toThrow(/"lm_head\.weight" whole.*tied to the embeddings/);
  await expect(merge([await adapter("tied", lora("lm_head"))], { base })).rejects.toThrow(
    /tied to the embeddings/,
  );
  await expect(merge([await adapter("other", lora("layers.7.q"))], { base })).rejects.toThrow(
    /trained on this base/,
  );
});

test("how a layer is stored is the layer's, whatever fan_in_fan_out says", async () => {
  const gpt2 = { model_type: "gpt2", architectures: ["GPT2LMHeadModel"] };
  const base = await model("base", { "h.0.attn.c_attn.weight": [[2, 2], 0, 0, 0, 0] }, gpt2);
  const parts: Tensors = {
    "transformer.h.0.attn.c_attn.lora_A.weight": [[1, 2], 1, 2],
    "transformer.h.0.attn.c_attn.lora_B.weight": [[2, 1], 1, 0],
  };
  for (const fan_in_fan_out of [true, false]) {
    const one = await adapter("one", parts, { fan_in_fan_out });
    // B A is [[1, 2], [0, 0]], and the weight is stored the other way round.
    expect(await (await merge([one], { base, write: "model" })).tensors()).toEqual({
      "h.0.attn.c_attn.weight": [1, 0, 2, 0],
    });
  }
  const linear = await model("linear", { "layers.0.q.weight": [[2, 2], 0, 0, 0, 0] });
  const claimed = await adapter("claimed", lora("layers.0.q"), { fan_in_fan_out: true });
  expect(await (await merge([claimed], { base: linear, write: "model" })).tensors()).toEqual({
    "layers.0.q.weight": [2, 0, 0, 0],
  });
});

test("adapters of transformers 5 find the modules that the file names otherwise", async () => {
  const vit = { model_type: "vit", architectures: ["ViTForImageClassification"] };
  const stored = "vit.encoder.layer.0.attention.attention.query.weight";
  const base = await model("base", { [stored]: [[2, 2], 0, 0, 0, 0] }, vit);
  const one = await adapter("one", lora("vit.layers.0.attention.q_proj"));
  expect(await (await merge([one], { base, write: "model" })).tensors()).toEqual({ [stored]: [2, 0, 0, 0] });
});

test("adapters that spell one base's modules differently come out in one spelling", async () => {
  const two: Tensors = { ...square, "layers.0.v.weight": [[2, 2], 1, 1, 1, 1] };
  const base = await model("base", under("model.", two));
  const one = await adapter("one", lora("model.layers.0.q"));
  const other = await adapter("other", { ...lora("layers.0.q"), ...lora("layers.0.v") });
  for (const models of [
    [one, other],
    [other, one],
  ]) {
    const { tensors, json } = await merge(models, { base });
    const prefix = models[0] === one ? "base_model.model.model." : "base_model.model.";
    expect(Object.keys(await tensors("adapter_model.safetensors")).sort()).toEqual(
      ["q.lora_A", "q.lora_B", "v.lora_A", "v.lora_B"].map((part) => `${prefix}layers.0.${part}.weight`),
    );
    expect((await json("adapter_config.json"))["rank_pattern"]).toEqual({
      [`${prefix.replace("base_model.model.", "")}layers.0.v`]: 1,
    });
  }
});

test("a model that is changed while it is read leaves no result", async () => {
  const [base, expert] = [await model("base", body(1)), await model("expert", body(2))];
  const out = fresh("out");
  let files = 0;
  const hooks = {
    note() {},
    progress() {
      // Between the check of the headers and the end.
      if (files++ === 0) utimesSync(join(expert, "model.safetensors"), 1, 1);
    },
    stopping: () => false,
  };
  const plain = { models: [expert], base, out, dtype: "auto", shardSize: 1e9, threads: 0 } as const;
  const changing = mergeFolders({ ...plain, method: findMethod("average"), given: {} }, hooks);
  await expect(changing).rejects.toThrow(/expert\/model\.safetensors: it was changed while it was read/);
  expect(files).toBeGreaterThan(0);
  expect(readdirSync(out)).toEqual([]);
});

test("pytorch_model.bin is a model's weights where there are no safetensors, whole or in shards", async () => {
  const torch = join(packageFolder, "test", "golden", "torch", "module.bin");
  const expected = JSON.parse(await readFile(torch.replace(/bin$/, "json"), "utf8")) as Record<
    string,
    { shape: number[]; values: number[] }
  >;
  const older = async (name: string, fill: (folder: string) => Promise<unknown>): Promise<string> => {
    const folder = fresh(name);
    await mkdir(folder);
    await writeFile(join(folder, "config.json"), JSON.stringify(llama));
    await fill(folder);
    return folder;
  };
  const base = await older("base", (folder) => cp(torch, join(folder, "pytorch_model.bin")));
  const sharded = await older("sharded", async (folder) => {
    const shard = "pytorch_model-00001-of-00001.bin";
    await cp(torch, join(folder, shard));
    const weight_map = Object.fromEntries(Object.keys(expected).map((name) => [name, shard]));
    await writeFile(join(folder, "pytorch_model.bin.index.json"), JSON.stringify({ weight_map }));
  });
  const doubled = await model(
    "doubled",
    Object.fromEntries(
      Object.entries(expected).map(([name, { shape, values }]) => [
        name,
        [shape, ...values.map((x) => 2 * x)],
      ]),
    ),
  );
  for (const one of [base, sharded]) {
    const merged = await (await merge([one, doubled], { method: "average" })).tensors();
    for (const [name, { values }] of Object.entries(expected))
      expect(merged[name]).toEqual(values.map((x) => Math.fround(1.5 * Math.fround(x))));
  }
  const evil = await older("evil", (folder) =>
    cp(torch.replace("module", "evil"), join(folder, "pytorch_model.bin")),
  );
  await expect(merge([evil, doubled], { method: "average" })).rejects.toThrow(/which is not run/);
});

test("DoRA is folded into its model as PEFT folds it", async () => {
  const made = join(packageFolder, "test", "golden", "dora");
  const { out, tensors } = await merge([join(made, "adapter")], {
    base: join(made, "base"),
    method: "average",
  });
  expect(existsSync(join(out, "adapter_config.json"))).toBe(false);
  const found = await tensors();
  const expected = await openSafetensors(join(made, "merged.safetensors"));
  expect(Object.keys(found).sort()).toEqual([...expected.entries.keys()].sort());
  for (const name of expected.entries.keys())
    expect(relativeError(found[name] ?? [], toFloat32(await expected.read(name))), name).toBeLessThan(1e-6);
  await expected.close();
  const asAdapter = merge([join(made, "adapter")], { base: join(made, "base"), write: "adapter" });
  await expect(asAdapter).rejects.toThrow(/is DoRA.*--write model/);
});

test.each([
  ["an id of the hub", "meta-llama/Llama-2-7b-hf", "refused"],
  ["an id without an organisation", "gpt2", "refused"],
  ["a folder elsewhere", "/home/somebody/checkpoints/step-100", "told"],
  ["the base's own folder", "./BASE", "silent"],
  ["the model that the base's config names", "acme/Tiny-1.5-hf", "silent"],
  ["the same model, packed", "unsloth/tiny-1.5-unsloth-bnb-4bit", "silent"],
  ["nothing", null, "silent"],
] as const)("an adapter that was trained on %s", async (_, name, outcome) => {
  const base = await model("base", square, { ...llama, _name_or_path: "acme/Tiny-1.5" });
  const config = { base_model_name_or_path: name?.replace("BASE", basename(base)) ?? null };
  const one = await adapter("one", lora("layers.0.q"), config);
  const run = (options: object = {}) => merge([one], { base, method: "average", write: "model", ...options });
  const said = /it says that it was trained on .*, and is merged on/;
  if (outcome === "refused") await expect(run()).rejects.toThrow(said);
  else if (outcome === "silent") expect((await run()).notes.join()).not.toMatch(said);
  else {
    expect((await run()).notes.join()).toMatch(said);
    await expect(run({ strict: true })).rejects.toThrow(said);
  }
  const allowed = await run({ allowMismatch: true });
  if (outcome === "refused") expect(await readFile(join(allowed.out, "README.md"), "utf8")).toMatch(said);
});

test("a finished result is written over with --overwrite alone, one that was cut off without", async () => {
  const [base, first, second] = [
    await model("base", body(1)),
    await model("a", body(2)),
    await model("b", body(3)),
  ];
  const { out, tensors } = await merge([first], { base });
  const again = (options: object = {}) => merge([second], { base, out, ...options });
  await expect(again()).rejects.toThrow(
    /holds a finished result; --overwrite replaces it, or choose another folder/,
  );
  expect(await tensors()).toEqual(expected(2));
  await again({ overwrite: true });
  expect(await tensors()).toEqual(expected(3));
  // The card comes last: without it the folder is what a kill left.
  await rm(join(out, "README.md"));
  await merge([first], { base, out });
  expect(await tensors()).toEqual(expected(2));
});
