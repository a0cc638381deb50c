import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { openMember, openExpert } from "../../src/checkpoint/family.js";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { mergeFolders } from "../../src/mergers/models.js";
import { findMethod } from "../../src/methods/index.js";
import { packageFolder } from "../../src/package.js";
import { toFloat32 } from "../../src/tensor/dtype.js";
import { relativeError, temporaryFolder } from "../helpers.js";

const made = join(packageFolder, "test", "golden", "experts");
let scratch: string;
let count = 0;
beforeAll(async () => {
  scratch = await temporaryFolder();
});

async function tensorsIn(folder: string): Promise<Map<string, Float32Array>> {
  const file = await openSafetensors(join(folder, "model.safetensors"));
  const found = new Map<string, Float32Array>();
  for (const name of file.entries.keys()) found.set(name, toFloat32(await file.read(name)));
  await file.close();
  return found;
}

async function merge(method: string, given: object, models: string[], base?: string): Promise<string> {
  const out = join(scratch, `out ${count++}`);
  await mergeFolders(
    {
      method: findMethod(method),
      given: { ...given },
      models,
      base,
      out,
      dtype: "auto",
      shardSize: 1e9,
      threads: 0,
    },
    { note() {}, progress() {}, stopping: () => false },
  );
  return out;
}

function expectAlike(
  found: ReadonlyMap<string, Float32Array>,
  right: ReadonlyMap<string, Float32Array>,
): void {
  expect(new Set(found.keys())).toEqual(new Set(right.keys()));
  for (const [name, values] of right)
    expect(relativeError(found.get(name)!, values), name).toBeLessThan(1e-6);
}

/** A model's folder, the base within it, and whether PEFT stores it as that base is stored. */
const bases = [
  ["mixtral", "base"],
  ["qwen", "base"],
  ["gpt-oss", "base"],
  ["gpt-oss-square", "base"],
] as const;

describe.each(bases)("an adapter of %s's experts as one", (model, base) => {
  const [onto, adapter] = [join(made, model, base), join(made, model, "adapter")];

  test("is folded as PEFT folds it, from disk to disk", async () => {
    const out = await merge("passthrough", {}, [adapter], onto);
    expectAlike(await tensorsIn(out), await tensorsIn(join(made, model, "merged")));
  });

  test("reads so whole and by any part", async () => {
    const origin = await openMember("base", onto, (name) => name);
    const { checkpoint, actual } = await openExpert(
      { label: "one", folder: adapter },
      origin,
      (name) => name,
    );
    const right = await tensorsIn(join(made, model, "merged"));
    for (const [name, values] of right) {
      const stored = actual.get(name)!;
      const { dtype, bytes } = await checkpoint.read(stored);
      const whole = toFloat32({ dtype, shape: [], bytes });
      expect(relativeError(whole, values), name).toBeLessThan(1e-6);
      if (!name.includes("experts") || values.length < 40) continue;
      for (const [from, to] of [
        [0, 5],
        [13, 40],
      ] as const) {
        const part = await checkpoint.readRange(stored, 4 * from, 4 * (to - from));
        expect([...toFloat32({ dtype: "F32", shape: [], bytes: part })], name).toEqual(
          Array.from(whole.subarray(from, to)),
        );
      }
    }
    await checkpoint.close();
    await origin.checkpoint.close();
  });

  test("two of them are merged as models, and never written as an adapter", async () => {
    const out = await merge("task-arithmetic", { lambda: 0.5 }, [adapter, adapter], onto);
    expectAlike(await tensorsIn(out), await tensorsIn(join(made, model, "merged")));
  });
});

test("a stack of experts, as transformers 5 holds it, is adapted in its place", async () => {
  const out = await merge("passthrough", {}, [join(made, "qwen", "adapter")], join(made, "qwen", "stacked"));
  const [found, right] = [await tensorsIn(out), await tensorsIn(join(made, "qwen", "merged"))];
  const stack = found.get("model.layers.0.mlp.experts.gate_up_proj")!;
  const matrix = right.get("model.layers.0.mlp.experts.1.up_proj.weight")!;
  // [3, 12, 8]: expert 1's up lies below its gate.
  expect(relativeError(stack.subarray((12 + 6) * 8, (12 + 12) * 8), matrix)).toBeLessThan(1e-6);
});

test.each([
  ["base", "stacked"],
  ["stacked", "base"],
])("%s and %s, which are one model, are merged matrix by matrix", async (first, other) => {
  const folder = join(made, "qwen");
  const out = await merge("linear", { weight: [3, 1] }, [join(folder, first), join(folder, other)]);
  expectAlike(await tensorsIn(out), await tensorsIn(join(folder, "base")));
});

test("an adapter of other experts is refused", async () => {
  await expect(
    merge("passthrough", {}, [join(made, "mixtral", "adapter")], join(made, "qwen", "base")),
  ).rejects.toThrow(/mlp\.experts\.\w+" does not fit .*was it trained on this base\?/);
});

test("a pattern of alphas is of the parameter, and one that cannot be tried is refused", async () => {
  const base = join(made, "qwen", "base");
  const patterned = async (alphas: object): Promise<string> => {
    const folder = join(scratch, `adapter ${count++}`);
    await cp(join(made, "qwen", "adapter"), folder, { recursive: true });
    const config = JSON.parse(await readFile(join(folder, "adapter_config.json"), "utf8")) as object;
    await writeFile(
      join(folder, "adapter_config.json"),
      JSON.stringify({ ...config, alpha_pattern: alphas }),
    );
    return folder;
  };
  const changeOf = async (adapter: string, name: string): Promise<number> => {
    const [found, plain] = [
      await tensorsIn(await merge("passthrough", {}, [adapter], base)),
      await tensorsIn(base),
    ];
    return found.get(name)![0]! - plain.get(name)![0]!;
  };
  const [up, down] = ["up_proj", "down_proj"].map((name) => `model.layers.0.mlp.experts.0.${name}.weight`);
  const plain = join(made, "qwen", "adapter");
  const doubled = await patterned({ "experts.gate_up_proj": 6 });
  expect((await changeOf(doubled, up!)) / (await changeOf(plain, up!))).toBeCloseTo(2, 4);
  expect((await changeOf(doubled, down!)) / (await changeOf(plain, down!))).toBeCloseTo(1, 4);
  const module = await patterned({ "mlp.experts": 6 });
  expect((await changeOf(module, up!)) / (await changeOf(plain, up!))).toBeCloseTo(1, 4);
  const long = Array.from({ length: 60 }, (_, i) => i).join("|");
  const q = "model.layers.0.self_attn.q_proj.weight";
  for (const key of [`model.layers.(${long}).self_attn.(q_proj|k_proj|v_proj|o_proj)`, "(?P<all>.*).q_proj"])
    expect((await changeOf(await patterned({ [key]: 6 }), q)) / (await changeOf(plain, q)), key).toBeCloseTo(
      2,
      4,
    );
  for (const key of ["model(\\.\\w+)+\\.q_proj", "(?i:Q_PROJ)|["])
    await expect(merge("passthrough", {}, [await patterned({ [key]: 6 })], base)).rejects.toThrow(
      /cannot be tried/,
    );
});
