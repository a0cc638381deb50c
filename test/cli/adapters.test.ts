import { cp, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { openExpert, openMember, type Member } from "../../src/checkpoint/family.js";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { writeSafetensors, type TensorSource } from "../../src/checkpoint/write.js";
import { bert } from "../../src/models/bert.js";
import { packageFolder } from "../../src/package.js";
import { fromFloat32, toFloat32 } from "../../src/tensor/dtype.js";
import { factorise } from "../../src/tensor/factorise.js";
import { relativeError, temporaryFolder } from "../helpers.js";
import { canRunCards, cardTitle, headIsThere, runCard } from "./card.js";
import { cliIn, json } from "./cli.js";

const folder = await temporaryFolder();
const cli = cliIn(folder);
const mini = join(packageFolder, "checkpoints", "mini");
const base = join(mini, "base");
const tasks = ["rte", "cb"];

/**
 * A shipped expert as LoRA of rank 6 on its query, value and last dense layers, with its head; other
 * changes are left out.
 */
async function asLora(task: string): Promise<void> {
  const [origin, expert] = [
    await openMember("base", base, bert.canonical),
    await openMember(task, join(mini, "experts", task), bert.canonical),
  ];
  const sources: TensorSource[] = [];
  const tensor = (name: string, shape: number[], values: Float32Array) =>
    sources.push({
      name: `base_model.model.${name}`,
      dtype: "F32",
      shape,
      bytes: async () => fromFloat32(values, "F32"),
    });
  for (const name of origin.actual.keys()) {
    if (!/(query|value|output\.dense)\.weight$/.test(name)) continue;
    const { shape, values } = await origin.weights(name);
    const delta = (await expert.weights(name)).values.map((x, i) => x - values[i]!);
    let seed = 1;
    const { factors } = factorise({ values: delta, rows: shape[0]!, width: shape[1]! }, 6, () =>
      Math.sin(seed++ * 12.9898),
    );
    const module = `bert.${name.replace(/\.weight$/, "")}`;
    tensor(`${module}.lora_A.weight`, [6, shape[1]!], factors.right);
    tensor(`${module}.lora_B.weight`, [shape[0]!, 6], factors.left);
  }
  for (const part of ["weight", "bias"]) {
    const { shape, values } = await expert.weights(`classifier.${part}`);
    tensor(`classifier.${part}`, [...shape], values);
  }
  await mkdir(join(folder, "lora", task), { recursive: true });
  await writeSafetensors(join(folder, "lora", task, "adapter_model.safetensors"), sources);
  await writeFile(
    join(folder, "lora", task, "adapter_config.json"),
    JSON.stringify({
      peft_type: "LORA",
      r: 6,
      lora_alpha: 6,
      target_modules: ["query", "value", "output.dense"],
    }),
  );
  await Promise.all([origin, expert].map(({ checkpoint }) => checkpoint.close()));
}

/** Every weight of a model, or of an adapter on the base. */
async function weightsOf(path: string, base: string): Promise<Map<string, Float32Array>> {
  const origin = await openMember("base", base, bert.canonical);
  const one: Member = await openExpert({ label: "one", folder: path }, origin, bert.canonical);
  const found = new Map<string, Float32Array>();
  for (const name of origin.actual.keys())
    if (!name.startsWith("classifier."))
      found.set(name, toFloat32(await one.checkpoint.read(one.actual.get(name)!)).slice());
  await Promise.all([origin, one].map(({ checkpoint }) => checkpoint.close()));
  return found;
}

/** Largest difference of two models, relative to the largest change that one of them makes to the base. */
async function difference(a: string, b: string, on = base): Promise<number> {
  const [start, one, other] = [await weightsOf(on, on), await weightsOf(a, on), await weightsOf(b, on)];
  const change = (values: Map<string, Float32Array>) =>
    [...start].flatMap(([name, from]) => Array.from(values.get(name)!, (x, i) => x - from[i]!));
  return relativeError(change(one), change(other));
}

const given = ["--base", base, "--experts", join(folder, "lora", "rte"), join(folder, "lora", "cb")];

describe("LoRA experts", () => {
  beforeAll(async () => {
    for (const task of tasks) await asLora(task);
  });

  test.each(["average", "task-arithmetic", "linear"])(
    "%s: the ranks add up, and the adapter is the model",
    async (method) => {
      expect(await cli("merge", "--method", method, ...given, "--out", method)).toMatchObject({ code: 0 });
      expect(
        await cli(
          "merge",
          "--method",
          method,
          ...given,
          "--write",
          "model",
          "--dtype",
          "F32",
          "--out",
          `${method}-model`,
        ),
      ).toMatchObject({ code: 0 });
      expect(await json(join(folder, method, "adapter_config.json"))).toMatchObject({
        peft_type: "LORA",
        r: 12,
        lora_alpha: 12,
      });
      expect(await difference(join(folder, method), join(folder, `${method}-model`))).toBeLessThan(1e-5);
    },
  );

  test.each([["task-arithmetic", "--rank", "12"], ["slerp"]])(
    "%s %s %s: products taken apart again lose nothing where their rank allows it",
    async (method, ...more) => {
      expect(
        await cli("merge", "--method", method, ...given, ...more, "--out", `${method}-apart`),
      ).toMatchObject({ code: 0 });
      expect(
        await cli(
          "merge",
          "--method",
          method,
          ...given,
          "--write",
          "model",
          "--dtype",
          "F32",
          "--out",
          `${method}-whole`,
        ),
      ).toMatchObject({ code: 0 });
      // Slerp works on the whole weights: what it makes is no product of low rank, and it says what that costs.
      expect(await difference(join(folder, `${method}-apart`), join(folder, `${method}-whole`))).toBeLessThan(
        method === "slerp" ? 0.5 : 1e-5,
      );
    },
  );

  test.each(["lora-llama", "lora-gpt2", "lora-t5", "ia3-t5", "ia3-gpt2"])(
    "%s as PEFT saved it: the adapter is the model",
    async (name) => {
      const at = (part: string) => join(packageFolder, "test", "golden", "adapters", name, part);
      for (const write of ["adapter", "model"])
        expect(
          await cli(
            "merge",
            "--method",
            "average",
            "--base",
            at("base"),
            "--experts",
            at("a"),
            at("b"),
            "--write",
            write,
            "--dtype",
            "F32",
            "--out",
            `${name}-${write}`,
          ),
        ).toMatchObject({ code: 0 });
      expect(
        await difference(join(folder, `${name}-adapter`), join(folder, `${name}-model`), at("base")),
      ).toBeLessThan(1e-5);
      expect(await difference(at("base"), join(folder, `${name}-model`), at("base"))).toBe(1);
    },
  );

  test("ties: never A and B apart, and the cost of the rank is said", async () => {
    const { code, stderr } = await cli("merge", "--method", "ties", ...given, "--out", "ties");
    expect(code).toBe(0);
    expect(stderr).toMatch(
      /written as LoRA of rank 12: it differs from what ties makes by [\d.e+-]+ % of its norm/,
    );
    expect((await readdir(join(folder, "ties"))).sort()).toEqual([
      "README.md",
      "adapter_config.json",
      "adapter_model.safetensors",
      "merge.json",
    ]);
  });

  test("a whole expert and an adapter make a model", async () => {
    const mixed = ["--base", base, "--experts", join(folder, "lora", "rte"), join(mini, "experts", "cb")];
    expect(await cli("merge", "--method", "average", ...mixed, "--out", "mixed")).toMatchObject({ code: 0 });
    expect(await readdir(join(folder, "mixed"))).toContain("model.safetensors");
    expect(
      (await cli("merge", "--method", "average", ...mixed, "--write", "adapter", "--out", "mixed-adapter"))
        .stderr,
    ).toMatch(/--write adapter: the result is an adapter only where every expert is one/);
  });

  test(
    "training beside the weights writes an adapter that evaluates as it was measured; folded " +
      "in, the same model",
    async () => {
      const experts = tasks.map((task) => `${task}=${join(folder, "lora", task)}`);
      const run = (...more: string[]) =>
        cli(
          "--tasks",
          tasks.join(),
          "--base",
          base,
          "--experts",
          ...experts,
          "--steps",
          "4",
          "--backend",
          "wasm",
          "--dtype",
          "F32",
          ...more,
        );
      expect(await run("--out", "trained")).toMatchObject({ code: 0 });
      expect(await run("--out", "folded", "--write", "model")).toMatchObject({ code: 0 });
      expect(await readdir(join(folder, "trained"))).toContain("adapter_model.safetensors");
      expect(await difference(join(folder, "trained"), join(folder, "folded"))).toBeLessThan(1e-5);
      const { rows } = await json<{ rows: { method: string; task: string; value: number }[] }>(
        join(folder, "trained", "results.json"),
      );
      const { stdout, code } = await cli(
        "evaluate",
        "trained",
        "--base",
        base,
        "--backend",
        "wasm",
        "--json",
      );
      expect(code).toBe(0);
      const measured = (JSON.parse(stdout) as { rows: { task: string; value: number }[] }).rows;
      for (const { task, value } of measured)
        expect(value).toBe(rows.find((row) => row.method === "supermerge" && row.task === task)!.value);
      // The run's record says which base it is.
      const again = await cli("evaluate", "trained", "--backend", "wasm", "--json");
      expect(again.stdout).toBe(stdout);
    },
  );

  test.skipIf(!canRunCards)(cardTitle("a merged adapter"), async () => {
    expect(await runCard(join(folder, "trained"), headIsThere, base)).toBe("right");
  });

  test("a tree of adapters is one table, and evaluates as it was measured", async () => {
    const experts = tasks.map((task) => `${task}=${join(folder, "lora", task)}`);
    const grown = await cli(
      "tree",
      "--tasks",
      tasks.join(),
      "--base",
      base,
      "--experts",
      ...experts,
      "--steps",
      "2",
      "--backend",
      "wasm",
      "--keep-nodes",
      "--out",
      "grown",
    );
    expect(grown.stderr).not.toMatch(/train-merge: /);
    expect(grown.code).toBe(0);
    const { rows } = await json<{ rows: { method: string; task: string; value: number }[] }>(
      join(folder, "grown", "results.json"),
    );
    const measured = (
      JSON.parse((await cli("evaluate", "grown", "--base", base, "--backend", "wasm", "--json")).stdout) as {
        rows: { task: string; value: number }[];
      }
    ).rows;
    const byTask = (list: readonly { task: string; value: number }[]) =>
      Object.fromEntries(list.map(({ task, value }) => [task, value]));
    // The last rows are those of the tree, measured on what it wrote.
    expect(byTask(measured)).toEqual(byTask(rows.slice(-measured.length)));
  });

  test("compare puts adapters through its methods, searched and trained", async () => {
    const experts = tasks.map((task) => `${task}=${join(folder, "lora", task)}`);
    const { code, stderr } = await cli(
      "compare",
      "--tasks",
      tasks.join(),
      "--base",
      base,
      "--experts",
      ...experts,
      "--methods",
      "average,ties,supermerge",
      "--steps",
      "2",
      "--backend",
      "wasm",
      "--out",
      "compared",
    );
    expect(stderr).not.toMatch(/train-merge: /);
    expect(code).toBe(0);
    const { rows } = await json<{ rows: { method: string; task: string; value: number }[] }>(
      join(folder, "compared", "results.json"),
    );
    for (const method of ["average", "ties", "supermerge"])
      expect(
        rows
          .filter((row) => row.method === method)
          .map(({ task }) => task)
          .sort(),
      ).toEqual([...tasks].sort());
    // The same table of coefficients, once as a model and once beside the weights.
    const individual = (task: string) =>
      rows.find((row) => row.method === "individual" && row.task === task)!.value;
    const trained = await json<{ rows: { method: string; task: string; value: number }[] }>(
      join(folder, "trained", "results.json"),
    );
    for (const task of tasks)
      expect(individual(task)).toBe(
        trained.rows.find((row) => row.method === "individual" && row.task === task)!.value,
      );
  });

  test("a mergekit file may name model+adapter", async () => {
    const models = tasks.map((task) => {
      const model = `${base}+${join(folder, "lora", task)}`;
      return `  - model: ${model}\n    parameters: { weight: 0.5 }\n`;
    });
    const file = `merge_method: linear\nmodels:\n${models.join("")}dtype: float32\n`;
    await writeFile(join(folder, "kit.yml"), file);
    const made = await cli("merge", "kit.yml", "--out", "kit");
    // Heads are not merged: the first model's stay, and that is said.
    expect(made.stderr).toMatch(/^2 of 73 tensors are copied unchanged from \S+: classifier\.weight/m);
    expect(made.code).toBe(0);
    expect(await difference(join(folder, "kit"), join(folder, "average-model"))).toBeLessThan(1e-5);
  });

  test("(IA)³ vectors are merged entry by entry, the base being ones", async () => {
    const goldens = join(packageFolder, "test", "golden", "adapters", "ia3-t5");
    const own = ["--base", join(goldens, "base"), "--experts", join(goldens, "a"), join(goldens, "b")];
    const vectors = async (path: string) => {
      const file = await openSafetensors(join(path, "adapter_model.safetensors"));
      const found = new Map<string, Float32Array>();
      for (const name of file.entries.keys()) found.set(name, toFloat32(await file.read(name)).slice());
      await file.close();
      return found;
    };
    const [a, b] = [await vectors(join(goldens, "a")), await vectors(join(goldens, "b"))];
    for (const [method, expected] of [
      ["average", (x: number, y: number) => (x + y) / 2],
      ["task-arithmetic", (x: number, y: number) => 1 + 0.3 * (x - 1) + 0.3 * (y - 1)],
    ] as const) {
      expect(await cli("merge", "--method", method, ...own, "--out", `ia3-${method}`)).toMatchObject({
        code: 0,
      });
      const merged = await vectors(join(folder, `ia3-${method}`));
      expect([...merged.keys()].sort()).toEqual([...a.keys()].sort());
      for (const [name, values] of merged)
        expect(
          relativeError(
            values,
            Array.from(a.get(name)!, (x, i) => expected(x, b.get(name)![i]!)),
          ),
        ).toBeLessThan(1e-6);
    }
    expect(await json(join(folder, "ia3-average", "adapter_config.json"))).toMatchObject({
      peft_type: "IA3",
    });
  });

  test(
    "a user's own folder is left alone, whatever it is called; a bias that an adapter holds " +
      "whole makes the result a model",
    async () => {
      await mkdir(join(folder, "shop", "products"), { recursive: true });
      await writeFile(join(folder, "shop", "products", "mine.txt"), "mine");
      expect((await cli("merge", "--method", "average", ...given, "--out", "shop")).stderr).toMatch(
        /was not written by train-merge/,
      );
      expect(await readdir(join(folder, "shop", "products"))).toEqual(["mine.txt"]);
      await cp(join(folder, "lora", "rte"), join(folder, "biased"), { recursive: true });
      const file = await openSafetensors(join(folder, "lora", "rte", "adapter_model.safetensors"));
      const bias = "encoder.layer.0.attention.self.query.bias";
      const [origin] = [await openMember("base", base, bert.canonical)];
      const { shape } = await origin.weights(bias);
      await writeSafetensors(join(folder, "biased", "adapter_model.safetensors"), [
        ...[...file.entries].map(([name, entry]): TensorSource => ({
          name,
          dtype: entry.dtype,
          shape: entry.shape,
          bytes: async () => (await file.read(name)).bytes,
        })),
        {
          name: `base_model.model.bert.${bias}`,
          dtype: "F32",
          shape: [...shape],
          bytes: async () => fromFloat32(new Float32Array(shape[0]!).fill(1), "F32"),
        },
      ]);
      await file.close();
      await origin.checkpoint.close();
      const experts = ["--base", base, "--experts", join(folder, "biased"), join(folder, "lora", "cb")];
      expect(await cli("merge", "--method", "average", ...experts, "--out", "with-bias")).toMatchObject({
        code: 0,
      });
      expect(await readdir(join(folder, "with-bias"))).toContain("model.safetensors");
      expect(
        (
          await cli(
            "merge",
            "--method",
            "average",
            ...experts,
            "--write",
            "adapter",
            "--out",
            "with-bias-adapter",
          )
        ).stderr,
      ).toMatch(/holds ".*query\.bias" whole, which such an adapter cannot express/);
    },
  );

  test("what cannot be is said", async () => {
    const broken = async (name: string, change: Record<string, unknown>) => {
      await cp(join(folder, "lora", "rte"), join(folder, name), { recursive: true });
      await writeFile(
        join(folder, name, "adapter_config.json"),
        JSON.stringify({
          ...(await json<object>(join(folder, "lora", "rte", "adapter_config.json"))),
          ...change,
        }),
      );
      return (
        await cli(
          "merge",
          "--method",
          "average",
          "--base",
          base,
          "--experts",
          join(folder, name),
          join(folder, "lora", "cb"),
          "--out",
          `${name}-out`,
        )
      ).stderr;
    };
    expect(await broken("dora", { use_dora: true })).toMatch(
      /there is no ".*lora_magnitude_vector", and use_dora is set/,
    );
    expect(await broken("prompt", { peft_type: "PROMPT_TUNING" })).toMatch(
      /peft_type "PROMPT_TUNING" is not supported, only LORA and IA3/,
    );
    expect(await broken("pissa", { init_lora_weights: "pissa" })).toMatch(
      /makes it an adapter of a changed base/,
    );
    expect(
      (
        await cli(
          "merge",
          "--method",
          "average",
          "--experts",
          join(folder, "lora", "rte"),
          join(folder, "lora", "cb"),
          "--out",
          "baseless",
        )
      ).stderr,
    ).toMatch(/it is an adapter: name the model that it was trained on with --base/);
  });
});
