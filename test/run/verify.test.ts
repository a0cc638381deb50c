import { cp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { writeSafetensors, type TensorSource } from "../../src/checkpoint/write.js";
import { packageFolder } from "../../src/package.js";
import { verify } from "../../src/run/verify.js";
import { type DType } from "../../src/tensor/dtype.js";
import { temporaryFolder } from "../helpers.js";
import { adapter, byFile, merge, model, type Tensors } from "../mergers/small.js";

const mini = join(packageFolder, "checkpoints", "mini");
const models = ["rte", "cb"].map((task) => join(mini, "experts", task));
const base = join(mini, "base");
let scratch: string;
let count = 0;
beforeAll(async () => {
  scratch = await temporaryFolder();
});

const stateOf = async (folder: string, all = true) =>
  Object.fromEntries(
    (await verify(folder, { all })).map(({ what, ok, detail }) => [what, ok === false ? detail : ok]),
  );
const right = { tensors: true, numbers: true, "worked out again": true };

interface Spoilt {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** A result with its tensors changed. */
async function spoilt(from: string, change: (tensor: Spoilt) => Spoilt | undefined): Promise<string> {
  // Beside it: a record tells places from its own folder.
  const folder = `${from}-${count++}`;
  await cp(from, folder, { recursive: true });
  const file = await openSafetensors(join(from, "model.safetensors"));
  const sources: TensorSource[] = [];
  for (const name of file.entries.keys()) {
    const tensor = change({ name, ...(await file.read(name)) });
    if (tensor) sources.push({ ...tensor, bytes: async () => tensor.bytes });
  }
  await file.close();
  await writeSafetensors(join(folder, "model.safetensors"), sources);
  return folder;
}

test.each([
  ["average", {}, "F32"],
  ["linear", { given: { weight: [3, 1] } }, "F16"],
  ["linear", { given: { weight: [0.5, -0.25], normalize: false } }, "F32"],
  ["task-arithmetic", { base, given: { lambda: 0.3 } }, "BF16"],
  ["task-arithmetic", { base, given: { lambda: 1, weight: [1, 3], normalize: true } }, "F32"],
] as const)("%s %j as %s is what its record says", async (method, options, dtype) => {
  const { out } = await merge(models, { method, dtype, ...options });
  expect(await stateOf(out)).toMatchObject(right);
  expect(await stateOf(out, false)).toMatchObject(right);
});

test.each([
  ["ties", {}, "F32"],
  ["ties", { density: 0.5, lambda: 0.7, combine: "sum" }, "F16"],
  ["ties", { density: [0.3, 0.9] }, "BF16"],
  ["ties", { variant: "mergekit", density: 0.4, weight: [1, 0.3] }, "F32"],
  ["ties", { variant: "mergekit", density: [0, 1], normalize: false, rescaled: true }, "F32"],
  ["ties", { variant: "mergekit", density: [1, 0.6], dareP: 0.4, rescale: "l1" }, "F32"],
  ["dare", {}, "F32"],
  ["dare", { dareP: [0.5, 0], weight: [1, 2], normalize: true, seed: 7 }, "BF16"],
  ["dare", { dareP: 0.7, rescale: "l1" }, "F32"],
  ["task-arithmetic", { dareP: 0.6, rescale: "none", lambda: 0.5 }, "F32"],
  ["slerp", { t: 0.3 }, "F32"],
] as const)("%s %j as %s is worked out again from whole tensors", async (method, given, dtype) => {
  const options = { method, dtype, given, ...(method !== "slerp" && { base }) };
  const { out } = await merge(models, options);
  expect(await stateOf(out)).toMatchObject(right);
  expect(await stateOf(out, false)).toMatchObject(right);
  // One parameter otherwise than it was: the record does not fit the model any more.
  const other = `${out}-${count++}`;
  await cp(out, other, { recursive: true });
  const record = JSON.parse(await readFile(join(out, "merge.json"), "utf8")) as {
    values: Record<string, unknown>;
  };
  const key = { ties: "density", slerp: "t" }[method as string] ?? "seed";
  record.values[key] = { density: 0.6, t: 0.31, seed: 99 }[key];
  await writeFile(join(other, "merge.json"), JSON.stringify(record));
  expect((await stateOf(other))["worked out again"]).toMatch(/is right$/);
});

test("ties of models whose sums cancel exactly are right with either sign", async () => {
  const [zero, up, down] = await Promise.all(
    [0, 1, -1].map((x) => model(`m${x}`, { "layers.0.q.weight": [[2, 2], x, 2 * x, -x, 3 * x] })),
  );
  const { out } = await merge([up!, down!], { method: "ties", base: zero!, given: { density: 1 } });
  expect(await stateOf(out)).toMatchObject(right);
});

test.each([
  ["linear", "models: [{model: A, parameters: {weight: [1, 0]}}, {model: B, parameters: {weight: 1}}]"],
  ["task_arithmetic", "base_model: BASE\nmodels: [{model: A}, {model: B}]\nparameters: {weight: 0.4}"],
  [
    "dare_ties",
    "base_model: BASE\nmodels: [{model: A}, {model: B}]\nparameters: {weight: 0.4, density: 0.6}",
  ],
  [
    "passthrough",
    "slices: [{sources: [{model: A, layer_range: [0, 1]}]}, {sources: [{model: B, layer_range: [0, 1]}]}]",
  ],
])("a merge by a mergekit file, %s, is held against the file", async (method, text) => {
  const [a = "", b = ""] = models;
  const file = text.replaceAll("BASE", base).replaceAll("A,", `${a},`).replaceAll("B,", `${b},`);
  const named = file.replaceAll("{model: A}", `{model: ${a}}`).replaceAll("{model: B}", `{model: ${b}}`);
  const { out } = await byFile(`merge_method: ${method}\n${named}`, { seed: 4 });
  expect(await stateOf(out)).toMatchObject({ inputs: true, ...right });
  const wrong = await spoilt(out, (tensor) => {
    if (!tensor.name.endsWith("query.weight")) return tensor;
    const bytes = Uint8Array.from(tensor.bytes);
    bytes[7]! ^= 0x40;
    return { ...tensor, bytes };
  });
  expect((await stateOf(wrong))["worked out again"]).toMatch(/query\.weight" holds .* is right$/);
  const lacking = await spoilt(out, (tensor) => (tensor.name.endsWith("key.bias") ? undefined : tensor));
  expect((await stateOf(lacking))["tensors"]).toMatch(/key\.bias" is not there/);
});

test("methods that are not worked out again say so", async () => {
  const { out } = await merge(models, { method: "karcher", given: {} });
  expect((await verify(out)).at(-1)).toEqual({
    what: "worked out again",
    ok: undefined,
    detail: "karcher is not worked out again: sums, task arithmetic, TIES, DARE and SLERP are",
  });
  const dropped = await merge(models, { method: "average", base, given: { dareP: 0.5 } });
  expect((await verify(dropped.out)).at(-1)!.ok).toBeUndefined();
});

test("one entry, one name, one shape, one number that is none: found each time", async () => {
  const { out } = await merge(models, { base, dtype: "F32", given: { lambda: 0.3 } });
  const last = "encoder.layer.1.output.dense.weight";
  const nudged = await spoilt(out, (tensor) => {
    if (!tensor.name.endsWith(last)) return tensor;
    const values = new Float32Array(tensor.bytes.slice().buffer);
    values[values.length - 1]! += 1e-4;
    return { ...tensor, bytes: new Uint8Array(values.buffer) };
  });
  expect((await stateOf(nudged))["worked out again"]).toMatch(
    new RegExp(`${last}" holds .* at entry \\d+, and .* is right`),
  );
  const renamed = await spoilt(out, (tensor) => ({
    ...tensor,
    name: tensor.name.replace("layer.1.output", "layer.7.output"),
  }));
  expect((await stateOf(renamed))["tensors"]).toMatch(/layer\.1\.output.* is not there/);
  const lost = await spoilt(out, (tensor) => (tensor.name.endsWith(last) ? undefined : tensor));
  expect((await stateOf(lost))["tensors"]).toMatch(/is not there/);
  const turned = await spoilt(out, (tensor) =>
    tensor.name.endsWith(last) ? { ...tensor, shape: [...tensor.shape].toReversed() } : tensor,
  );
  expect((await stateOf(turned))["tensors"]).toMatch(/ is \[\d+, \d+\], in .* \[\d+, \d+\]/);
  const damaged = await spoilt(out, (tensor) => {
    if (!tensor.name.endsWith(last)) return tensor;
    const values = new Float32Array(tensor.bytes.slice().buffer);
    values[5] = NaN;
    return { ...tensor, bytes: new Uint8Array(values.buffer) };
  });
  expect((await stateOf(damaged))["numbers"]).toMatch(/holds NaN at entry 5/);
  const config = JSON.parse(await readFile(join(out, "config.json"), "utf8")) as object;
  const worded = await spoilt(out, (tensor) => tensor);
  await writeFile(join(worded, "config.json"), JSON.stringify({ ...config, dtype: "float16" }));
  expect((await stateOf(worded))["tensors"]).toMatch(/config\.json says float16, the tensors are float32/);
});

test("an input that is gone or was changed is said", async () => {
  const own = join(scratch, "expert");
  await cp(models[0]!, own, { recursive: true });
  const { out } = await merge([own, models[1]!], { base, given: { lambda: 0.3 } });
  expect(await stateOf(out)).toMatchObject(right);
  const weights = join(own, "model.safetensors");
  const bytes = await readFile(weights);
  // In the middle of the file: a weight that is merged.
  bytes[Math.floor(bytes.length / 2)]! ^= 0x40;
  await writeFile(weights, bytes);
  expect((await stateOf(out))["worked out again"]).toMatch(/is right/);
  await rename(own, join(scratch, "elsewhere"));
  expect((await verify(out)).find(({ what }) => what === "inputs")).toMatchObject({
    ok: undefined,
    detail: expect.stringMatching(/not there any more/) as string,
  });
  await expect(verify(base)).rejects.toThrow(/it is not a finished merge/);
});

test("files of the result and of the inputs that are others, or gone, are found whatever the method", async () => {
  const own = join(scratch, "one of them");
  await cp(models[0]!, own, { recursive: true });
  const { out } = await merge([own, models[1]!], { method: "karcher" });
  expect(await stateOf(out)).toMatchObject({ files: true, inputs: true });
  const copy = async () => {
    const folder = join(scratch, `copy ${count++}`);
    await cp(out, folder, { recursive: true });
    return folder;
  };
  const [config, lacking] = [await copy(), await copy()];
  const text = await readFile(join(config, "config.json"), "utf8");
  await writeFile(
    join(config, "config.json"),
    text.replace(/"num_hidden_layers": \d+/, '"num_hidden_layers": 1'),
  );
  expect((await stateOf(config))["files"]).toMatch(/config\.json is not what was written/);
  await rm(join(lacking, "config.json"));
  await expect(verify(lacking)).rejects.toThrow(/config\.json/);
  await rename(join(own, "model.safetensors"), join(own, "model-00001-of-00001.safetensors"));
  expect((await verify(out)).find(({ what }) => what === "inputs")).toMatchObject({
    ok: false,
    detail: expect.stringMatching(/model\.safetensors is not there any more/) as string,
  });
});

test("a merge's record is not trusted", async () => {
  const { out } = await merge(models, { base, given: { lambda: 0.3 } });
  const path = join(out, "merge.json");
  const record = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
  const spoil = (change: object) => writeFile(path, JSON.stringify({ ...record, ...change }));
  for (const [change, message] of [
    [{ labels: ["a"] }, /merge\.json: it has 1 labels for 2 models/],
    [{ models: [] }, /labels for 0 models/],
    [{ values: { lambda: "no" } }, /merge\.json: values\.lambda "no": it must be a number/],
    [{ values: { weight: [1], lambda: [] } }, /merge\.json: values\./],
    [{ method: "magic" }, /merge\.json: there is no method magic/],
    [{ inputs: [{ folder: "/dev", file: "zero", sha256: "0".repeat(64) }] }, /\/dev\/zero.*device/],
  ] as const) {
    await spoil(change);
    await expect(verify(out)).rejects.toThrow(message);
  }
});

test("masks, empty tensors and what no adapter touches are right", async () => {
  const tensors = (x: number): Tensors => ({
    "layers.0.q.weight": [[2, 2], x, 2 * x, -x, 3 * x],
    "layers.0.mask": [[2], -Infinity, 0],
    "layers.0.empty": [[0]],
  });
  const [zero, one, two] = await Promise.all([0, 1, -2].map((x) => model(`m${x}`, tensors(x))));
  for (const [method, given] of [
    ["ties", {}],
    ["ties", { variant: "mergekit", density: 0.5 }],
    ["dare", { dareP: 0.5 }],
  ] as const)
    expect(await stateOf((await merge([one!, two!], { method, base: zero!, given })).out)).toMatchObject(
      right,
    );
  expect(
    await stateOf((await merge([one!, two!], { method: "slerp", given: { t: 0.3 } })).out),
  ).toMatchObject(right);
  for (const method of ["ties", "dare_linear", "linear"])
    expect(
      await stateOf(
        (
          await byFile(
            `merge_method: ${method}\nbase_model: ${zero}\nmodels: [{model: ${one}}, {model: ${two}}]\n` +
              "parameters: {weight: 1, density: 0.5}",
          )
        ).out,
      ),
    ).toMatchObject(right);
  // Beside what is rightly infinite, what is not, and what must be and is not, are found.
  const masked = await merge([one!, two!], { method: "average" });
  for (const [other, what, message] of [
    [NaN, "numbers", /mask" holds NaN at entry 1/],
    [Infinity, "numbers", /mask" holds Infinity at entry 1/],
    [3, "worked out again", /mask" holds 3 at entry 0, and -Infinity is right/],
  ] as const) {
    const entry = Number(what === "numbers");
    const wrong = await spoilt(masked.out, (tensor) => {
      if (tensor.name !== "layers.0.mask") return tensor;
      const bytes = Uint8Array.from(tensor.bytes);
      new DataView(bytes.buffer).setFloat32(4 * entry, other, true);
      return { ...tensor, bytes };
    });
    expect((await stateOf(wrong))[what]).toMatch(message);
  }
  // Only the weight that they adapt is ranked by the authors' TIES.
  const square = (x: number): Tensors => ({
    "layers.0.q.weight": [[2, 2], x, x, x, x],
    "layers.1.q.weight": [[2, 2], x, 2, 3, 4],
  });
  const from = await model("from", square(1));
  const lora = (x: number) =>
    adapter("lora", {
      "layers.0.q.lora_A.weight": [[1, 2], x, 1],
      "layers.0.q.lora_B.weight": [[2, 1], 1, x],
    });
  const adapted = { method: "ties", base: from, write: "model", given: { density: 0.5 } } as const;
  expect(await stateOf((await merge([await lora(2), await lora(3)], adapted)).out)).toMatchObject(right);
  // Weights that do not add up to 1 scale what no adapter touches, too.
  const scaled = { method: "linear", base: from, given: { weight: [0.3, 0.3], normalize: false } } as const;
  const sum = await merge([await lora(2), await lora(3)], scaled);
  expect((await sum.tensors())["layers.1.q.weight"]![3]).toBeCloseTo(2.4, 6);
  expect(await stateOf(sum.out)).toMatchObject(right);
});
