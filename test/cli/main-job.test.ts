import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, readFile, readdir, rename, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { openCheckpoint } from "../../src/checkpoint/folder.js";
import { writeWeights, type TensorSource } from "../../src/checkpoint/write.js";
import { packageFolder } from "../../src/package.js";
import type { ResultRow } from "../../src/report/rows.js";
import { expectSameBytes, temporaryFolder } from "../helpers.js";
import { canRunCards, cardTitle, headIsThere, runCard } from "./card.js";
import { cliIn, contents, json, main } from "./cli.js";

const folder = await temporaryFolder();
const mini = join(packageFolder, "checkpoints", "mini");
const data = join(packageFolder, "data", "mini");
const quick = [
  "--tasks",
  "cb,copa",
  "--steps",
  "24",
  "--eval-every",
  "8",
  "--batch-size",
  "8",
  "--test-per-task",
  "200",
  "--backend",
  "wasm",
];

const cli = cliIn(folder);

const whole = join(folder, "whole");
const run = await cli(...quick, "--out", whole, "--json");

describe("the main job", () => {
  test("writes a model folder, heads, coefficients, results, pictures and a card", async () => {
    expect(run).toMatchObject({ code: 0 });
    const files = await readdir(whole);
    for (const file of [
      "config.json",
      "model.safetensors",
      "tokenizer.json",
      "README.md",
      "heads",
      "coefficients.csv",
      "coefficients.json",
      "coefficients.svg",
      "coefficients.png",
      "results.json",
      "training.jsonl",
      "run.json",
    ])
      expect(files).toContain(file);
    expect(await readdir(join(whole, "heads"))).toEqual(["cb", "copa"]);
    const card = await readFile(join(whole, "README.md"), "utf8");
    expect(card).toMatch(/SYNTHETIC/);
    expect(card).toMatch(/\| base \| model.safetensors \| `[0-9a-f]{64}` \|/);
    expect((await readFile(join(whole, "coefficients.png"))).subarray(1, 4).toString()).toBe("PNG");
  });

  test.skipIf(!canRunCards)(cardTitle("a merged encoder"), async () => {
    expect(await runCard(whole, headIsThere)).toBe("right");
  });

  test("results hold every method and task, and SuperMerge beats the average here", () => {
    const { rows, synthetic } = JSON.parse(run.stdout) as { rows: ResultRow[]; synthetic: boolean };
    expect(synthetic).toBe(true);
    expect([...new Set(rows.map(({ method }) => method))]).toEqual([
      "individual",
      "pretrained",
      "average",
      "task-arithmetic",
      "supermerge",
    ]);
    const mean = (method: string) =>
      rows
        .filter((row) => row.method === method)
        .reduce((sum, { value }, _, all) => sum + value / all.length, 0);
    expect(mean("individual")).toBeGreaterThan(0.9);
    expect(mean("supermerge")).toBeGreaterThan(mean("average"));
  });

  test("evaluate finds the same accuracies in the written files", async () => {
    const { stdout } = await cli("evaluate", whole, "--backend", "wasm", "--json");
    const measured = (JSON.parse(stdout) as { rows: ResultRow[] }).rows.map(({ task, value }) => [
      task,
      value,
    ]);
    const { rows } = await json<{ rows: ResultRow[] }>(join(whole, "results.json"));
    expect(measured).toEqual(
      rows.filter(({ method }) => method === "supermerge").map(({ task, value }) => [task, value]),
    );
  });

  test("the merged folder has the base's names, shapes and dtypes", async () => {
    const [base, merged] = [await openCheckpoint(join(mini, "base")), await openCheckpoint(whole)];
    expect(merged.names).toEqual(base.names);
    for (const name of base.names)
      expect([merged.entry(name)!.dtype, merged.entry(name)!.shape]).toEqual([
        base.entry(name)!.dtype,
        base.entry(name)!.shape,
      ]);
    await base.close();
    await merged.close();
  });

  test("the same command gives the same bytes", async () => {
    const again = join(folder, "again");
    // Who watches changes nothing, and the page ends with its run.
    const { stderr } = await cli(...quick, "--out", again, "--watch");
    expect(stderr).toMatch(/watch it at http:\/\/127\.0\.0\.1:\d+\//);
    expect(await contents(again)).toEqual(await contents(whole));
  });

  test.each([
    ["SIGINT", 8],
    ["SIGKILL", 0],
    ["SIGKILL", 16],
  ] as const)(
    "a run stopped by %s after step %i and resumed ends in the same bytes",
    async (signal, step) => {
      const out = join(folder, `stopped-${signal}-${step}`);
      const child = spawn(process.execPath, [main, ...quick, "--out", out], {
        cwd: folder,
        stdio: ["ignore", "ignore", "pipe"],
      });
      const ended = new Promise<number | null>((resolve) => child.on("exit", resolve));
      const moment = `step ${step}/24`;
      let text = "";
      child.stderr.on("data", (chunk: Buffer) => {
        text += chunk.toString();
        if (!child.killed && text.includes(moment)) child.kill(signal);
      });
      const code = await ended;
      if (signal === "SIGINT") {
        expect(code).toBe(130);
        expect(text).toMatch(/--resume goes on/);
      }
      expect(existsSync(join(out, "results.json"))).toBe(false);
      const resumed = await cli(...quick, "--out", out, "--resume");
      expect(resumed.stderr).toMatch(/resumed at step \d+ of 24/);
      expect(await contents(out)).toEqual(await contents(whole));
    },
  );

  test("experts that were saved while wrapped are the same experts; another architecture is none", async () => {
    const experts: string[] = [];
    for (const task of ["cb", "copa"]) {
      const own = join(mini, "experts", task);
      const [wrapped, checkpoint] = [join(folder, `wrapped-${task}`), await openCheckpoint(own)];
      const sources = checkpoint.names.map((name): TensorSource => {
        const { dtype, shape } = checkpoint.entry(name)!;
        return {
          name: `module._orig_mod.${name.replace("LayerNorm.weight", "LayerNorm.gamma")}`,
          dtype,
          shape,
          bytes: async () => (await checkpoint.read(name)).bytes,
        };
      });
      await writeWeights(wrapped, sources, 1e9);
      await cp(join(own, "config.json"), join(wrapped, "config.json"));
      await checkpoint.close();
      experts.push(`${task}=${wrapped}`);
    }
    const args = [...quick, "--base", join(mini, "base"), "--data", data, "--experts", ...experts];
    const out = join(folder, "from-wrapped");
    await mkdir(out);
    // As a run is started again that was killed before its first save.
    const begun = await cli(...args, "--out", out, "--resume");
    expect(begun).toMatchObject({ code: 0 });
    expect(begun.stderr).toMatch(/holds no state\.json; the run starts anew/);
    for (const file of [
      "model.safetensors",
      "heads/cb/head.safetensors",
      "training.jsonl",
      "coefficients.csv",
    ])
      await expectSameBytes(join(out, file), join(whole, file));

    const config = join(folder, "wrapped-cb", "config.json");
    await writeFile(config, (await readFile(config, "utf8")).replace('"gelu"', '"relu"'));
    const refused = await cli(...args, "--out", "never");
    expect(refused).toMatchObject({ code: 1 });
    expect(refused.stderr).toMatch(
      /wrapped-cb \(cb\): its config\.json has hidden_act "relu".*--allow-mismatch/,
    );
    expect(existsSync(join(folder, "never"))).toBe(false);
  });

  test("a resume with other settings is refused, naming them", async () => {
    const { code, stderr } = await cli(...quick, "--lr", "0.5", "--out", whole, "--resume");
    expect(code).toBe(1);
    expect(stderr).toMatch(/made with another lr;/);
  });

  test("a config file and options share one schema; options win", async () => {
    const config = join(folder, "merge.yaml");
    await writeFile(
      config,
      "tasks: [cb, copa]\nsteps: 4\nbatch-size: 4\ngate: sigmoid\nbackend: wasm\nval-per-task: 8\n",
    );
    const out = join(folder, "configured");
    expect(await cli("--config", config, "--steps", "2", "--out", out)).toMatchObject({ code: 0 });
    const { settings } = await json<{ settings: Record<string, unknown> }>(join(out, "results.json"));
    expect(settings).toMatchObject({ steps: 2, batchSize: 4, gate: "sigmoid", valPerTask: 8 });
  });

  test("shards and another dtype are written on request", async () => {
    const out = join(folder, "sharded");
    expect(
      await cli(...quick, "--steps", "0", "--dtype", "F32", "--shard-size", "500KB", "--out", out),
    ).toMatchObject({ code: 0 });
    const merged = await openCheckpoint(out);
    expect(merged.files.filter((file) => file.endsWith(".safetensors")).length).toBeGreaterThan(1);
    expect(merged.entry(merged.names[0]!)!.dtype).toBe("F32");
    await merged.close();
  });
});

test("tasks and doctor speak to people and to machines", async () => {
  expect((await cli("tasks")).stdout).toMatch(/rte +pair +synthetic/);
  const { chosen, engines } = JSON.parse((await cli("doctor", "--json")).stdout) as {
    chosen: string;
    engines: { name: string; found: boolean; mend?: string }[];
  };
  expect(engines.find(({ name }) => name === chosen)!.found).toBe(true);
  expect(engines.find(({ name }) => name === "wasm")!.found).toBe(true);
  for (const engine of engines.filter(({ found }) => !found)) expect(engine.mend).toBeTruthy();
});

/** A copy of the family in which one thing is broken. */
async function broken(name: string, spoil: (family: string) => Promise<void>): Promise<string> {
  const copy = join(folder, name);
  await cp(mini, copy, { recursive: true });
  await spoil(copy);
  return copy;
}

/** Writes a checkpoint again with some tensors changed, renamed or left out. */
async function rewrite(
  checkpointFolder: string,
  change: (source: TensorSource) => TensorSource | undefined,
): Promise<void> {
  const checkpoint = await openCheckpoint(checkpointFolder);
  const sources = await Promise.all(
    checkpoint.names.map(async (name): Promise<TensorSource> => {
      const { dtype, shape, bytes } = await checkpoint.read(name);
      return { name, dtype, shape, bytes: async () => bytes };
    }),
  );
  await checkpoint.close();
  await writeWeights(
    checkpointFolder,
    sources.flatMap((source) => change(source) ?? []),
    1e9,
  );
}

test("what no expert changes is copied byte for byte; a head of the base's own stays behind", async () => {
  const bytesOf = (values: Float32Array | BigInt64Array) => async () => new Uint8Array(values.buffer);
  const extra: TensorSource[] = [
    {
      name: "embeddings.position_ids",
      dtype: "I64",
      shape: [1, 4],
      bytes: bytesOf(BigInt64Array.from([0n, 1n, 2n, 3n])),
    },
    {
      name: "cls.predictions.bias",
      dtype: "F32",
      shape: [3],
      bytes: bytesOf(Float32Array.from([NaN, 1e-45, -0])),
    },
    { name: "classifier.weight", dtype: "F32", shape: [2, 96], bytes: bytesOf(new Float32Array(192)) },
  ];
  const family = await broken("extra", async (f) => {
    const base = join(f, "base");
    const checkpoint = await openCheckpoint(base);
    const sources = await Promise.all(
      checkpoint.names.map(async (name): Promise<TensorSource> => {
        const { dtype, shape, bytes } = await checkpoint.read(name);
        // The old spelling of the hub's first BERT files.
        return {
          name: name
            .replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta"),
          dtype,
          shape,
          bytes: async () => bytes,
        };
      }),
    );
    await checkpoint.close();
    await writeWeights(base, [...sources, ...extra], 1e9);
  });
  const out = join(folder, "extra-out");
  expect(await cli(...quick, "--steps", "0", "--family", family, "--data", data, "--out", out)).toMatchObject(
    { code: 0 },
  );
  const merged = await openCheckpoint(out);
  for (const { name, dtype, bytes } of extra.slice(0, 2))
    expect(await merged.read(name)).toMatchObject({ dtype, bytes: await bytes() });
  expect(merged.names).toContain("embeddings.LayerNorm.gamma");
  expect(merged.names).not.toContain("classifier.weight");
  await merged.close();
});

const query = "bert.encoder.layer.0.attention.self.query.weight";
const expert = (family: string) => join(family, "experts", "cb");

describe("bad input gets one line and exit code 1, a command line that is not understood 2", () => {
  test.each<[string, (family: string) => Promise<void>, RegExp]>([
    [
      "truncated weights",
      (f) => truncate(join(expert(f), "model.safetensors"), 100_000),
      /experts\/cb\/model\.safetensors: tensor ".*": its bytes end at \d+, the file at 100000; the file is cut short/,
    ],
    [
      "a missing tensor",
      (f) => rewrite(expert(f), (s) => (s.name === query ? undefined : s)),
      /experts\/cb \(cb\): there is no tensor "encoder\.layer\.0\.attention\.self\.query\.weight"/,
    ],
    [
      "a wrong shape",
      (f) =>
        rewrite(expert(f), (s) =>
          s.name === query ? { ...s, shape: [s.shape[0]! * 2, s.shape[1]! / 2] } : s,
        ),
      /"bert\.encoder.*query\.weight" is \[192, 48\], the base has \[96, 96\]; was it fine-tuned from this base\?/,
    ],
    [
      "NaN weights",
      (f) =>
        rewrite(expert(f), (s) =>
          s.name === query ? { ...s, bytes: async () => (await s.bytes()).fill(0xff) } : s,
        ),
      /query\.weight" holds NaN at entry 0/,
    ],
    [
      "an integer weight",
      (f) => rewrite(expert(f), (s) => (s.name === query ? { ...s, dtype: "I16" } : s)),
      /is I16; a weight must be F32, F16 or BF16/,
    ],
    [
      "no head",
      (f) => rewrite(expert(f), (s) => (s.name.startsWith("classifier") ? undefined : s)),
      /experts\/cb \(cb\): there is no head/,
    ],
    [
      "another head",
      (f) => cp(join(f, "experts", "trec6"), expert(f), { recursive: true }),
      /its head is \[6, 96\]; cb needs 3 outputs \(entailment, contradiction, neutral\)/,
    ],
    [
      "a wrong vocabulary",
      async (f) => {
        const path = join(f, "base", "tokenizer.json");
        const tokenizer = await json<{ model: { vocab: Record<string, number> } }>(path);
        for (let i = 0; i < 10; i++) tokenizer.model.vocab[`extra${i}`] = 1000 + i;
        await writeFile(path, JSON.stringify(tokenizer));
      },
      /tokenizer\.json has \d+ tokens, the model's vocabulary \d+; they do not belong together/,
    ],
    [
      "another architecture",
      (f) => writeFile(join(f, "base", "config.json"), '{"model_type":"mamba"}'),
      /model_type "mamba" is not one train-merge can train; it knows bert/,
    ],
    [
      "an unsupported activation",
      async (f) => {
        const path = join(f, "base", "config.json");
        await writeFile(path, JSON.stringify({ ...(await json<object>(path)), hidden_act: "tanhshrink" }));
      },
      /"hidden_act": "tanhshrink" is not supported for bert/,
    ],
    [
      "an index that leaves its folder",
      async (f) => {
        await rm(join(expert(f), "model.safetensors"));
        await writeFile(
          join(expert(f), "model.safetensors.index.json"),
          '{"weight_map":{"a":"../x.safetensors"}}',
        );
      },
      /names the shard "\.\.\/x\.safetensors"; a shard must be a file of the same folder/,
    ],
    ["no expert", (f) => rm(expert(f), { recursive: true }), /there is no expert for task cb/],
  ])("%s", async (name, spoil, message) => {
    const family = await broken(name.replaceAll(" ", "-"), spoil);
    const out = join(folder, `${name.replaceAll(" ", "-")}-out`);
    const { code, stderr } = await cli(...quick, "--family", family, "--data", data, "--out", out);
    expect(stderr.trim().split("\n").at(-1)).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(code).toBe(1);
    expect(existsSync(join(out, "model.safetensors"))).toBe(false);
  });

  test.each<[string, string[], RegExp, code?: number]>([
    ["unknown task", ["--tasks", "rte,copaa"], /unknown task "copaa" \(did you mean "copa"\?\)/],
    ["unknown option", ["--tasks", "rte", "--stepz", "3"], /unknown option '--stepz'.*\n.*--steps/, 2],
    ["a word for a number", ["--tasks", "rte", "--steps", "many"], /--steps: .*number/, 2],
    [
      "unknown gate",
      ["--tasks", "rte", "--gate", "relu"],
      /--gate: it must be one of tanh, sigmoid, clamp, identity/,
      2,
    ],
    [
      "a start the gate cannot reach",
      ["--tasks", "rte", "--init", "1.5"],
      /--init: the tanh gate cannot start there/,
      2,
    ],
    ["no tasks", [], /name the tasks to merge/, 2],
    ["unknown command", ["mrege"], /no command "mrege" \(did you mean "merge"\?\)/, 2],
    [
      "models of one's own without data",
      ["--tasks", "rte,cb", "--base", join(mini, "experts", "cb")],
      /^train-merge: .*cb: name the data with --data/m,
    ],
    [
      "unknown family",
      ["--tasks", "rte", "--family", "minni"],
      /--family minni: no folder.*did you mean "mini"/,
    ],
    [
      "an engine that is not there",
      ["--tasks", "rte", "--backend", "node-gpu"],
      /--backend node-gpu: (not installed; to fix it: train-merge setup|no NVIDIA card is here|TensorFlow )/,
    ],
    [
      "a folder of someone else's",
      ["--tasks", "rte", "--out", packageFolder],
      /is not empty and was not written by train-merge/,
    ],
  ])("%s", async (_, args, message, expected = 1) => {
    const { code, stderr } = await cli(...args);
    expect(stderr).toMatch(message);
    expect(code).toBe(expected);
  });

  test("an unknown key of a config file is named, with the nearest known one", async () => {
    const config = join(folder, "bad.yaml");
    await writeFile(config, "tasks: rte\nval-per-taks: 3\n");
    expect((await cli("--config", config)).stderr).toMatch(
      /bad\.yaml: unknown key "val-per-taks" \(did you mean "val-per-task"\?\)/,
    );
  });

  test("an empty data file and an unknown label", async () => {
    const own = join(folder, "own-data");
    await mkdir(join(own, "cb"), { recursive: true });
    await cp(data, own, { recursive: true });
    await writeFile(join(own, "cb", "validation.jsonl"), "");
    expect((await cli(...quick, "--data", own, "--out", join(folder, "x1"))).stderr).toMatch(
      /cb\/validation\.jsonl: there are no examples in it/,
    );
    await writeFile(join(own, "cb", "validation.jsonl"), '{"text_a":"a","text_b":"b","label":"odd"}\n');
    expect((await cli(...quick, "--data", own, "--out", join(folder, "x2"))).stderr).toMatch(
      /validation\.jsonl:1: unknown label "odd" for cb/,
    );
  });

  // /dev/full takes no byte: only Linux has it.
  test.skipIf(!existsSync("/dev/full"))("a full disk is said in one line", async () => {
    const { explain } = await import("../../src/errors.js");
    const failed = await writeFile("/dev/full", "x").then(
      () => undefined,
      (error: Error) => error,
    );
    expect((explain(failed) as Error).message).toMatch(/no space left on the device/);
  });

  test("--debug shows the stack", async () => {
    expect((await cli("--tasks", "nothing", "--debug")).stderr).toMatch(
      /UserError: unknown task[^]*\n\s+at /,
    );
  });
});

test("a task of one's own needs no registry; the result is measured on the run's own data", async () => {
  const [own, out] = [join(folder, "own data"), join(folder, "own")];
  await cp(join(data, "rte"), join(own, "mood"), { recursive: true });
  const models = ["--base", join(mini, "base"), "--experts", `mood=${join(mini, "experts", "rte")}`];
  const run = [
    "--tasks",
    "mood",
    ...models,
    "--data",
    own,
    "--steps",
    "0",
    "--backend",
    "wasm",
    "--out",
    out,
  ];
  const made = await cli(...run, "--json");
  expect(made).toMatchObject({ code: 0 });
  expect(made.stderr).toMatch(
    /mood: text from "text_a" with "text_b"; 2 labels \(.*\), by its expert's id2label/,
  );
  const measured = await cli("evaluate", out, "--json");
  expect(measured).toMatchObject({ code: 0 });
  const last = (printed: string) => (JSON.parse(printed) as { rows: ResultRow[] }).rows.at(-1)!;
  const { method: _made, ...row } = last(made.stdout);
  const { method: _measured, ...again } = last(measured.stdout);
  expect(again).toEqual(row);
  // An expert by itself is what the table's first row says.
  const expertAlone = ["evaluate", join(mini, "experts", "rte"), "--tasks", "mood", "--data", own];
  const alone = await cli(...expertAlone, "--base", join(mini, "base"), "--json");
  const [individual] = (JSON.parse(made.stdout) as { rows: ResultRow[] }).rows;
  expect(last(alone.stdout)).toEqual({ ...individual, method: "model" });
  await rename(own, `${own} elsewhere`);
  const gone = await cli("evaluate", out);
  expect(gone.stderr).toMatch(/its data are not there any more \(.*own data\): name the folder with --data/);
});

test("links in a family are followed", async () => {
  const linked = join(folder, "linked");
  await mkdir(linked);
  await symlink(join(mini, "base"), join(linked, "base"));
  await symlink(join(mini, "experts"), join(linked, "experts"));
  expect(
    await cli(...quick, "--steps", "0", "--family", linked, "--out", join(folder, "linked-out")),
  ).toMatchObject({ code: 0 });
});
