import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { openCheckpoint } from "../../src/checkpoint/folder.js";
import { writeSafetensors, type TensorSource } from "../../src/checkpoint/write.js";
import { gpt2 } from "../../src/models/gpt2.js";
import { packageFolder } from "../../src/package.js";
import { elements, fromFloat32 } from "../../src/tensor/dtype.js";
import { temporaryFolder } from "../helpers.js";
import { canRunCards, cardTitle, runCard } from "./card.js";
import { cliIn, json } from "./cli.js";

const folder = await temporaryFolder();
const cli = cliIn(folder);
const mini = join(packageFolder, "checkpoints", "mini", "base");
const tasks = ["rte", "cb"];

/** A tiny language model of random weights, or one a little off it. */
async function model(path: string, seed: number): Promise<void> {
  const vocabulary = Object.keys(
    (await json<{ model: { vocab: object } }>(join(mini, "tokenizer.json"))).model.vocab,
  ).length;
  const config = {
    model_type: "gpt2",
    architectures: ["GPT2LMHeadModel"],
    n_embd: 16,
    n_layer: 1,
    n_head: 2,
    n_positions: 128,
    vocab_size: vocabulary,
    eos_token_id: 3,
    layer_norm_epsilon: 1e-5,
    attn_pdrop: 0.1,
  };
  const draw = (i: number, s: number) => Math.sin(12.9898 * (i + 1) + 78.233 * s);
  const sources = [...gpt2.build(config).parameters].map(([name, shape], t): TensorSource => ({
    name: `transformer.${name}`,
    dtype: "F32",
    shape,
    bytes: async () =>
      fromFloat32(
        Float32Array.from(
          { length: elements(shape) },
          (_, i) =>
            (/ln_\w+\.weight$/.test(name) ? 1 : 0) +
            0.3 * draw(i, t) +
            0.1 * (seed && draw(i, t + 31 * seed)),
        ),
        "F32",
      ),
  }));
  // As many tied models are published: the base's table stands there once more.
  const copies = sources
    .filter(({ name }) => seed === 0 && name.endsWith("wte.weight"))
    .map((table) => ({ ...table, name: "lm_head.weight" }));
  await mkdir(path, { recursive: true });
  await writeSafetensors(join(path, "model.safetensors"), [...sources, ...copies]);
  await writeFile(join(path, "config.json"), JSON.stringify(config));
  await cp(join(mini, "tokenizer.json"), join(path, "tokenizer.json"));
}

describe("a language model", () => {
  const given = [
    "--tasks",
    tasks.join(),
    "--family",
    "lm",
    "--data",
    "data",
    "--backend",
    "wasm",
    "--steps",
    "4",
    "--val-per-task",
    "8",
  ];
  beforeAll(async () => {
    await model(join(folder, "lm", "base"), 0);
    for (const [i, task] of tasks.entries()) await model(join(folder, "lm", "experts", task), i + 1);
    for (const task of tasks) {
      await mkdir(join(folder, "data", task), { recursive: true });
      for (const split of ["validation", "test"]) {
        const lines = (await readFile(join(packageFolder, "data", "mini", task, `${split}.jsonl`), "utf8"))
          .split("\n")
          .slice(0, 12);
        await writeFile(join(folder, "data", task, `${split}.jsonl`), `${lines.join("\n")}\n`);
      }
    }
  });

  test("is merged by training and by methods, without heads, and evaluates as it was measured", async () => {
    expect(await cli(...given, "--out", "out")).toMatchObject({ code: 0 });
    expect(await readdir(join(folder, "out", "heads", "rte"))).toEqual(["config.json"]);
    // The merge's table is another than the base's: a copy of that is not left behind.
    const written = await openCheckpoint(join(folder, "out"));
    expect(written.names).toContain("transformer.wte.weight");
    expect(written.names).not.toContain("lm_head.weight");
    await written.close();
    const { rows } = await json<{ rows: { method: string; task: string; value: number }[] }>(
      join(folder, "out", "results.json"),
    );
    expect(new Set(rows.map(({ method }) => method))).toEqual(
      new Set(["individual", "pretrained", "average", "task-arithmetic", "supermerge"]),
    );
    const { stdout, code } = await cli("evaluate", "out", "--data", "data", "--backend", "wasm", "--json");
    expect(code).toBe(0);
    for (const { task, value } of (JSON.parse(stdout) as { rows: { task: string; value: number }[] }).rows)
      expect(value).toBe(rows.find((row) => row.method === "supermerge" && row.task === task)!.value);
    expect(
      await cli("compare", ...given, "--methods", "ties,fisher,regmean,adamerging", "--out", "compared"),
    ).toMatchObject({ code: 0 });
  });

  test.skipIf(!canRunCards)(cardTitle("a merged language model"), async () => {
    const check = "import torch\nprint(model(input_ids=torch.tensor([[1, 2, 3]])).logits.shape[-1])";
    const { vocab_size: size } = await json<{ vocab_size: number }>(join(folder, "out", "config.json"));
    expect(await runCard(join(folder, "out"), check)).toBe(String(size));
  });

  test("promptsource's templates, the mean as score, the papers' split, from disk by blocks", async () => {
    const source = join(folder, "promptsource", "super_glue");
    await mkdir(join(source, "rte"), { recursive: true });
    await mkdir(join(source, "cb"), { recursive: true });
    const yaml = (choices: string) =>
      `dataset: super_glue\ntemplates:\n  0a1b: !Template\n    answer_choices: ${choices}\n    ` +
      `id: 0a1b\n    jinja: '{{premise}} so {{"{{"}}hypothesis{{"}}"}} {{hypothesis}} ||| ` +
      "{{answer_choices[label]}}'\n    metadata: !TemplateMetadata\n      original_task: " +
      "true\n    name: plain\n";
    await writeFile(join(source, "rte", "templates.yaml"), yaml("Yes ||| No"));
    await writeFile(join(source, "cb", "templates.yaml"), yaml("Yes ||| No ||| Maybe"));
    expect(
      await cli(
        ...given,
        "--prompts",
        "promptsource",
        "--score",
        "mean",
        "--split",
        "paper",
        "--val-per-task",
        "4",
        "--residency",
        "disk",
        "--blocks",
        "on",
        "--out",
        "source",
      ),
    ).toMatchObject({ code: 0 });
    const { rows } = await json<{ rows: { n: number }[] }>(join(folder, "source", "results.json"));
    // The test file has labels: it is tested on whole.
    expect(rows.every(({ n }) => n === 12)).toBe(true);
    expect((await cli(...given, "--prompts", "promptsource/super_glue/rte", "--out", "none")).stderr).toMatch(
      /there are no templates with answer_choices for cb/,
    );
  });

  test("says what it is asked for: exact match, shown on demand; methods that need classes are refused", async () => {
    const rows = ["red", "green", "blue", "white", "black", "grey"].map((colour, i) => ({
      background: `The ${colour} one is ${i % 2 ? "old" : "new"}.`,
      situation: `We take the ${colour} one.`,
      question: "Is it old or new?",
      answers: [i % 2 ? "old" : "new"],
    }));
    const written = async (split: string, content: readonly object[]) =>
      writeFile(
        join(folder, "data", "ropes", `${split}.jsonl`),
        content.map((row) => `${JSON.stringify(row)}\n`).join(""),
      );
    await mkdir(join(folder, "data", "ropes"), { recursive: true });
    await written("validation", rows);
    await written("test", rows.slice(0, 3));
    await cp(join(folder, "lm", "experts", "cb"), join(folder, "lm", "experts", "ropes"), {
      recursive: true,
    });
    const both = ["--tasks", "rte,ropes", ...given.slice(2)];
    expect(await cli(...both, "--out", "said")).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("ropes: exact match"),
    });
    const again = async (...options: string[]) =>
      JSON.parse(
        (
          await cli(
            "evaluate",
            "said",
            "--data",
            "data",
            "--backend",
            "wasm",
            "--show",
            "3",
            "--json",
            ...options,
          )
        ).stdout,
      ) as {
        rows: { task: string; metric: string; value: number }[];
        said: { task: string; prompt: string; said: string; right: string[] }[];
      };
    const first = await again();
    const own = first.said.filter(({ task }) => task === "ropes");
    expect(first.rows.find(({ task }) => task === "ropes")).toMatchObject({
      metric: "exact-match",
      value: 0,
    });
    expect(own.map(({ right }) => right)).toEqual(rows.slice(0, 3).map(({ answers }) => answers));
    expect(own[0]!.prompt).toMatch(/the red is new. .*is it old/);
    expect(first.said.map(({ task }) => task).sort()).toEqual([
      "ropes",
      "ropes",
      "ropes",
      "rte",
      "rte",
      "rte",
    ]);
    // What it says in one template made the right answer, in other dress: two of three are right then.
    await mkdir(join(folder, "single", "ropes"), { recursive: true });
    await writeFile(
      join(folder, "single", "ropes", "templates.yaml"),
      "dataset: ropes\ntemplates:\n  0a: !Template\n    answer_choices: null\n    jinja: " +
        "'{{background}} {{question}} |||'\n    name: plain\n",
    );
    const single = ["--tasks", "ropes", "--prompts", "single"];
    const { said } = await again(...single);
    await written(
      "test",
      rows.slice(0, 3).map((row, i) => ({
        ...row,
        answers: {
          text: i === 0 ? row.answers : ["something else", `The ${said[i]!.said.toUpperCase()}!`],
        },
      })),
    );
    expect((await again(...single)).rows[0]).toMatchObject({ metric: "exact-match", value: 2 / 3 });
    expect((await cli(...both, "--loss", "entropy", "--out", "none")).stderr).toMatch(
      /ropes: --loss entropy needs classes or answers to choose from/,
    );
    expect((await cli("compare", ...both, "--methods", "fisher", "--out", "none")).stderr).toMatch(
      /ropes: Fisher information is computed over classes or answers/,
    );
    await written("test", [{ ...rows[0]!, answers: 7 }]);
    expect((await cli("evaluate", "said", "--data", "data", "--tasks", "ropes")).stderr).toMatch(
      /test\.jsonl:1: "answers" must be a list of texts/,
    );
  });

  test("a tree of it is flattened like any other", async () => {
    expect(await cli("tree", ...given, "--out", "grown")).toMatchObject({ code: 0 });
    expect(await readdir(join(folder, "grown"))).toContain("model.safetensors");
  });
});
