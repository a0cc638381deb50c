import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { writeWeights, type TensorSource } from "../../src/checkpoint/write.js";
import { packageFolder } from "../../src/package.js";
import { fromFloat32, toFloat32, type FloatDType } from "../../src/tensor/dtype.js";
import { temporaryFolder } from "../helpers.js";
import { cliIn, json } from "./cli.js";

const folder = await temporaryFolder();
const cli = cliIn(folder);
const mini = join(packageFolder, "checkpoints", "mini");
const expert = (task: string) => join(mini, "experts", task);
const experts = ["--base", join(mini, "base"), "--experts", expert("rte"), expert("cb"), expert("copa")];

/** A small model of an architecture that nobody knows. */
async function model(
  name: string,
  tensors: Record<string, { dtype?: FloatDType | "I64"; shape: number[]; values: number[] }>,
): Promise<string> {
  const sources = Object.entries(tensors).map(([tensor, { dtype = "F32", shape, values }]): TensorSource => ({
    name: tensor,
    dtype,
    shape,
    bytes: async () =>
      dtype === "I64"
        ? new Uint8Array(BigInt64Array.from(values.map(BigInt)).buffer)
        : fromFloat32(Float32Array.from(values), dtype),
  }));
  await writeWeights(join(folder, name), sources, 1e9);
  await writeFile(
    join(folder, name, "config.json"),
    JSON.stringify({ model_type: "nobody-knows", num_hidden_layers: 1 }),
  );
  return name;
}

async function read(out: string): Promise<Record<string, number[]>> {
  const file = await openSafetensors(join(folder, out, "model.safetensors"));
  const found: Record<string, number[]> = {};
  for (const [name, { dtype }] of file.entries)
    found[name] =
      dtype === "I64"
        ? Array.from(new BigInt64Array((await file.read(name)).bytes.slice().buffer), Number)
        : Array.from(toFloat32(await file.read(name)));
  await file.close();
  return found;
}

const half = { dtype: "BF16" as const, shape: [2], values: [1, 2] };
await model("base", {
  w: { shape: [2, 2], values: [0, 0, 0, 0] },
  half,
  ids: { dtype: "I64", shape: [2], values: [7, 8] },
  head: { shape: [2], values: [1, 1] },
});
await model("a", {
  w: { shape: [2, 2], values: [1, 2, 3, 4] },
  half: { ...half, values: [1.5, 2] },
  ids: { dtype: "I64", shape: [2], values: [1, 1] },
  head: { shape: [3], values: [2, 2, 2] },
});
await model("b", {
  w: { shape: [2, 2], values: [3, 0, 0, 0] },
  half,
  ids: { dtype: "I64", shape: [2], values: [2, 2] },
  head: { shape: [2], values: [3, 3] },
});

describe("merge", () => {
  test("the number of threads and the order of the models change no byte", async () => {
    const bytes: Buffer[] = [];
    for (const [i, threads] of ["0", "1", "3"].entries()) {
      for (const method of ["ties", "dare", "della"]) {
        const { code, stderr } = await cli(
          "merge",
          "--method",
          method,
          ...experts,
          "--threads",
          threads,
          "--seed",
          "5",
          "--out",
          `threads-${method}-${i}`,
        );
        expect(stderr).not.toMatch(/Error/);
        expect(code).toBe(0);
        bytes.push(await readFile(join(folder, `threads-${method}-${i}`, "model.safetensors")));
      }
    }
    for (let i = 3; i < bytes.length; i++) expect(bytes[i]!.equals(bytes[i % 3]!)).toBe(true);
  });

  test("shards hold what one file holds", async () => {
    expect(
      await cli("merge", "--method", "ties", ...experts, "--out", "sharded", "--shard-size", "200KB"),
    ).toMatchObject({ code: 0 });
    const index = await json<{ weight_map: Record<string, string> }>(
      join(folder, "sharded", "model.safetensors.index.json"),
    );
    const whole = await openSafetensors(join(folder, "threads-ties-0", "model.safetensors"));
    expect(new Set(Object.values(index.weight_map)).size).toBeGreaterThan(2);
    for (const [name, shard] of Object.entries(index.weight_map)) {
      const file = await openSafetensors(join(folder, "sharded", shard));
      expect(Buffer.compare((await file.read(name)).bytes, (await whole.read(name)).bytes)).toBe(0);
      await file.close();
    }
    await whole.close();
  });

  test("an architecture nobody knows: floats are merged, the rest is the base's, and it is said", async () => {
    const { code, stderr } = await cli(
      "merge",
      "--method",
      "task-arithmetic",
      "--lambda",
      "0.5",
      "--base",
      "base",
      "--experts",
      "a",
      "b",
      "--out",
      "nobody",
    );
    expect(code).toBe(0);
    expect(stderr).toMatch(
      /2 of 4 tensors are copied unchanged from the base: ids \(I64 is not merged\), head \(a's is \[3\], not \[2\]\)/,
    );
    expect(await read("nobody")).toEqual({ w: [2, 1, 1.5, 2], half: [1.25, 2], ids: [7, 8], head: [1, 1] });
    const entries = (await openSafetensors(join(folder, "nobody", "model.safetensors"))).entries;
    expect(entries.get("half")!.dtype).toBe("BF16");
    // Again into the same folder, which is known for ours, and for finished.
    const again = [
      "merge",
      "--method",
      "average",
      "--experts",
      "a",
      "b",
      "--out",
      "nobody",
      "--dtype",
      "F32",
    ];
    expect((await cli(...again)).stderr).toMatch(
      /nobody: it holds a finished result; --overwrite replaces it/,
    );
    expect(await cli(...again, "--overwrite")).toMatchObject({ code: 0 });
    expect((await read("nobody"))["w"]).toEqual([2, 1, 1.5, 2]);
  });

  test("NaN and infinity are found and named, whatever the type, and nothing is written", async () => {
    await model("nan", {
      w: { shape: [2, 2], values: [1, 2, NaN, 4] },
      half: { dtype: "BF16", shape: [2], values: [1, 2] },
    });
    await model("infinite", {
      w: { shape: [2, 2], values: [1, 2, 3, 4] },
      half: { dtype: "BF16", shape: [2], values: [1, -Infinity] },
    });
    for (const [name, message] of [
      ["nan", /\(nan\): "w" holds NaN at entry 2/],
      ["infinite", /\(infinite\): "half" holds -Infinity at entry 1/],
    ] as const) {
      for (const threads of ["0", "2"]) {
        const { code, stderr } = await cli(
          "merge",
          "--method",
          "ties",
          "--base",
          "base",
          "--experts",
          name,
          "b",
          "--out",
          `bad-${name}`,
          "--threads",
          threads,
        );
        expect(code).toBe(1);
        expect(stderr).toMatch(message);
        expect(stderr.trim().split("\n").at(-1)).not.toMatch(/fault of train-merge/);
        expect(await readdir(join(folder, `bad-${name}`))).toEqual([]);
      }
    }
  });

  test.each<[string[], RegExp, code?: number]>([
    [["--method", "tise", ...experts], /no such method \(did you mean "ties"\?\)/, 2],
    [
      ["--method", "ties", "--experts", expert("rte"), expert("cb")],
      /ties needs the model that the others were fine-tuned from: --base/,
    ],
    [["--method", "slerp", ...experts], /slerp merges exactly 2 models, not 3/],
    [
      ["--method", "ties", ...experts, "--gamma", "0.1"],
      /--gamma: ties has no such parameter.*it has .*density/,
    ],
    [["--method", "ties", ...experts, "--density", "2"], /--density 2: it must be from 0 to 1/],
    [["--method", "linear", ...experts, "--weight", "1,2"], /--weight 1,2: 2 numbers for 3 models/],
    [["--method", "linear", ...experts, "--weight", "1,-2,1"], /add up to 0/],
    [
      ["--method", "fisher", ...experts],
      /fisher needs data to run the models on: train-merge compare --methods fisher --tasks/,
    ],
    [
      ["--method", "average", "--experts", expert("rte"), expert("cb"), "--dare-p", "0.5"],
      /name the base they are taken against with --base/,
    ],
    [["--method", "ties", ...experts, "--out", expert("rte")], /it is the input/],
    [["--method", "ties"], /name the models to merge/, 2],
    [[], /name a method/, 2],
  ])("merge %j is refused in one line", async (args, message, expected = 1) => {
    const { code, stderr } = await cli(
      "merge",
      ...args,
      ...(args.includes("--out") ? [] : ["--out", "refused"]),
    );
    expect(code).toBe(expected);
    expect(stderr.split("\n").filter((line) => line.startsWith("train-merge:"))).toHaveLength(1);
    expect(stderr).toMatch(message);
  });

  test.each([
    [
      "merge_method: evolve\nmodels: [{model: a}, {model: b}]\nbase_model: base",
      /merge_method evolve is not supported/,
    ],
    [
      "merge_method: constructor\nmodels: [{model: a}, {model: b}]",
      /merge_method constructor is not supported/,
    ],
    ["merge_method: linear\nmodels: [{model: a}]\nmodules: {}", /give one of models, slices and modules/],
    ["merge_method: linear\nmodels: [{model: a}]", /linear needs the parameter weight for a/],
    [
      "merge_method: linear\nmodels: [{model: nowhere, parameters: {weight: 1}}]",
      /model nowhere: there is no such folder/,
    ],
    [
      "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\ntokenizer_source: union",
      /a: it has no list of tokens \(tokenizer.json\)/,
    ],
    [
      "merge_method: linear\nmodels: [{model: a, parameters: {wieght: 1}}]",
      /parameter wieght is not supported \(did you mean "weight"\?\)/,
    ],
    [
      "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\ndtype: int4",
      /dtype int4 is not supported/,
    ],
    ["merge_method: linear\nmodels: [{model: a", /merge.yml/],
    ["[1]", /not a mergekit file/],
  ])("a mergekit file %j is refused in one line", async (text, message) => {
    await writeFile(join(folder, "merge.yml"), text);
    const { code, stderr } = await cli("merge", "merge.yml", "--out", "refused");
    expect(code).toBe(1);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect(stderr).toMatch(message);
  });

  test("methods are listed, with their parameters", async () => {
    const { stdout } = await cli("methods");
    expect(stdout).toMatch(/ties +none +trim, elect signs/);
    expect(stdout).toMatch(/regmean +inputs /);
    expect(stdout).toMatch(/adamerging@test +test inputs /);
    expect(stdout).toMatch(/supermerge +labels /);
    const trained = await cli("methods", "supermerge-tsv-m");
    expect(trained.stdout).toMatch(/--treat tsv-m/);
    const family = join(packageFolder, "checkpoints", "mini");
    const models = ["--base", join(family, "base"), "--experts", join(family, "experts")];
    const chosen = await cli("methods", "--choose", ...models, "--data", "labels");
    expect(chosen.stdout).toMatch(
      /^5 experts, layers of up to 96 dimensions; their task vectors' cosines are /,
    );
    expect(chosen.stdout).toContain("compare --methods supermerge-tsv-m,supermerge-distillation-tsv-m,tsv-m");
    expect(await cli("methods", "--choose")).toMatchObject({ code: 2 });
    expect((await cli("methods", "constructor")).stderr).toMatch(/there is no such method/);
    expect((await cli("methods", "supermerg")).stderr).toMatch(/supermerge/);
    const listed = JSON.parse((await cli("methods", "--json")).stdout) as { name: string; data: string }[];
    expect(listed.find(({ name }) => name === "supermerge-entropy")!.data).toBe("inputs");
    expect((await cli("methods", "ties")).stdout).toMatch(
      /--density +0.2 +part of each task vector that is kept/,
    );
  });
});

const quick = [
  "--backend",
  "wasm",
  "--steps",
  "2",
  "--batch-size",
  "4",
  "--val-per-task",
  "8",
  "--eval-every",
  "2",
  "--test-per-task",
  "60",
];

describe("compare", () => {
  test("puts methods in one table, goes on where it stopped, and its TIES is merge's", async () => {
    const args = [
      "compare",
      "--tasks",
      "cb,copa",
      "--methods",
      "average,ties,fisher,regmean,slerp,adamerging++@test,supermerge-dare",
      "--keep",
      "--no-search",
      ...quick,
      "--out",
      "compared",
      "--json",
    ];
    const first = await cli(...args);
    expect(first).toMatchObject({ code: 0 });
    const { rows, times } = JSON.parse(first.stdout) as {
      rows: { method: string; task: string; value: number }[];
      times: { method: string; total: number }[];
    };
    const names = ["average", "ties", "fisher", "regmean", "slerp", "adamerging++@test", "supermerge-dare"];
    expect([...new Set(rows.map(({ method }) => method))]).toEqual(["individual", "pretrained", ...names]);
    expect(times.map(({ method }) => method)).toEqual(names);
    const again = await cli(...args);
    expect((JSON.parse(again.stdout) as { times: unknown }).times).toEqual(times);
    expect(await readFile(join(folder, "compared", "table.md"), "utf8")).toMatch(
      /\| method \| average \| rank \| cb \| copa \| data seen \| merge, s \|/,
    );
    expect(
      await cli(
        "merge",
        "--method",
        "ties",
        "--base",
        join(mini, "base"),
        "--experts",
        expert("cb"),
        expert("copa"),
        "--out",
        "ties",
      ),
    ).toMatchObject({ code: 0 });
    const [ours, theirs] = [
      await openSafetensors(join(folder, "compared", "models", "ties", "model.safetensors")),
      await openSafetensors(join(folder, "ties", "model.safetensors")),
    ];
    for (const name of ours.entries.keys())
      expect(Buffer.compare((await ours.read(name)).bytes, (await theirs.read(name)).bytes)).toBe(0);
    await ours.close();
    await theirs.close();
  });

  test("a search looks at λ, and a name that is none is refused", async () => {
    const { code } = await cli(
      "compare",
      "--tasks",
      "cb,copa",
      "--methods",
      "ties",
      ...quick,
      "--out",
      "searched",
    );
    expect(code).toBe(0);
    const { search } = await json<{ search: Record<string, { values: { lambda: number } }[]> }>(
      join(folder, "searched", "results.json"),
    );
    expect(search["ties"]!.length).toBeGreaterThan(10);
    expect((await cli("compare", "--tasks", "cb,copa", "--methods", "ties,tise")).stderr).toMatch(
      /--methods tise: there is no such method \(did you mean "ties"\?\)/,
    );
  });
});

describe("trained on treated task vectors, and exported", () => {
  test("AdaMerging's settings are its authors', and labels are not looked at", async () => {
    const { code } = await cli(
      "--method",
      "adamerging",
      "--tasks",
      "cb,copa",
      "--steps",
      "2",
      "--backend",
      "wasm",
      "--adapt-on",
      "test",
      "--test-per-task",
      "60",
      "--out",
      "ada",
    );
    expect(code).toBe(0);
    const { settings, rows } = await json<{ settings: Record<string, unknown>; rows: { method: string }[] }>(
      join(folder, "ada", "results.json"),
    );
    expect(settings).toMatchObject({
      loss: "entropy",
      gate: "clamp",
      init: 0.3,
      lr: 0.001,
      batchesPerStep: 2,
      holdout: 0,
      steps: 2,
    });
    expect(rows.at(-1)!.method).toBe("adamerging (test inputs)");
    expect((await cli("--tasks", "cb,copa", "--adapt-on", "test")).stderr).toMatch(
      /--adapt-on: test inputs may only be trained on without their labels/,
    );
  });

  test("what the experts say is learned without labels, on test inputs too", async () => {
    const { code } = await cli(
      "--tasks",
      "cb,copa",
      "--loss",
      "distillation",
      "--steps",
      "2",
      "--backend",
      "wasm",
      "--adapt-on",
      "test",
      "--test-per-task",
      "60",
      "--out",
      "distilled",
    );
    expect(code).toBe(0);
    const { rows } = await json<{ rows: { method: string }[] }>(join(folder, "distilled", "results.json"));
    expect(rows.at(-1)!.method).toBe("supermerge-distillation (test inputs)");
    const [, first] = (await readFile(join(folder, "distilled", "training.jsonl"), "utf8"))
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { losses: number[] });
    for (const loss of first!.losses) expect(loss).toBeGreaterThan(0);
    // At coefficients of 0 a merge is the base, whatever was done to the task vectors: what is lost
    // tells who the teacher was.
    const lost = async (treat: string) => {
      expect(
        await cli(
          "--tasks",
          "cb,copa",
          "--loss",
          "distillation",
          "--treat",
          treat,
          "--init",
          "0",
          "--steps",
          "1",
          "--val-per-task",
          "8",
          "--test-per-task",
          "20",
          "--backend",
          "wasm",
          "--out",
          `taught-${treat}`,
        ),
      ).toMatchObject({ code: 0 });
      return (
        JSON.parse(
          (await readFile(join(folder, `taught-${treat}`, "training.jsonl"), "utf8")).trim().split("\n")[1]!,
        ) as { losses: number[] }
      ).losses;
    };
    const [own, treated] = [await lost("none"), await lost("ties")];
    own.forEach((loss, i) => expect(treated[i]).toBeCloseTo(loss, 6));
  });

  test("a trained merge as a mergekit file makes the same model", async () => {
    expect(await cli("--tasks", "cb,copa", "--dtype", "F32", ...quick, "--out", "trained")).toMatchObject({
      code: 0,
    });
    expect(await cli("export", "trained", "--to", "trained.yml")).toMatchObject({ code: 0 });
    expect(await cli("merge", "trained.yml", "--out", "from-file")).toMatchObject({ code: 0 });
    const [a, b] = [await read("trained"), await read("from-file")];
    expect(Object.keys(b)).toEqual(Object.keys(a));
    for (const [name, values] of Object.entries(a))
      values.forEach((x, i) => expect(Math.abs(x - b[name]![i]!), name).toBeLessThan(1e-6));
    expect(await cli("--tasks", "cb,copa", "--treat", "ties", ...quick, "--out", "treated")).toMatchObject({
      code: 0,
    });
    expect((await cli("export", "treated")).stderr).toMatch(
      /treated with ties, which a mergekit file cannot express/,
    );
  });

  test("folders of an earlier copy are as good", async () => {
    await mkdir(join(folder, "moved"));
    await cp(join(folder, "nobody"), join(folder, "moved", "nobody"), { recursive: true });
    expect(
      await cli("merge", "--method", "linear", "--experts", "moved/nobody", "nobody", "--out", "self"),
    ).toMatchObject({ code: 0 });
    expect(await read("self")).toEqual(await read("nobody"));
  });
});
