/** What is damaged, and who reads it: the readers that commands use. */
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { PRNG } from "seedrandom";
import { openExpert, openMember } from "../../src/checkpoint/family.js";
import { vocabularyIn } from "../../src/checkpoint/vocabulary.js";
import { loadSettings } from "../../src/config/load.js";
import {
  mergeFile,
  readLog,
  resultsFile,
  runFile,
  coefficientsFile,
  stateFile,
} from "../../src/folder/files.js";
import { writeReport } from "../../src/folder/report.js";
import { loadState } from "../../src/folder/state.js";
import { lookUp } from "../../src/at.js";
import { lineageOf } from "../../src/inputs/lineage.js";
import { metadataText } from "../../src/report/metadata.js";
import { checkFamily } from "../../src/inputs/models.js";
import { readModel } from "../../src/inputs/prepare.js";
import { mergeByMergekitFile } from "../../src/mergers/mergekit-file.js";
import { recipeOfMerge } from "../../src/run/verify-recipe.js";
import { loadDecoder } from "../../src/tasks/decode.js";
import { parseExample } from "../../src/tasks/parse.js";
import { readExamples } from "../../src/tasks/files.js";
import { readIdx } from "../../src/tasks/idx.js";
import { readNpz } from "../../src/tasks/npz.js";
import { loadPrompts } from "../../src/tasks/prompts.js";
import { inferTask } from "../../src/tasks/infer.js";
import { loadTasks, makeTask, type Task } from "../../src/tasks/registry.js";
import { loadTokenizer } from "../../src/tasks/tokenize.js";
import { below, damageBytes, damageJson, damageText, pick, type Damaged } from "./mutations.js";

/** One kind of input. */
export interface Target {
  readonly name: string;
  /** Its part of all inputs. */
  readonly share: number;
  /** Damages a copy of a whole input; without a generator it is left as it is. */
  attempt(random: PRNG | undefined, folders: Folders): Promise<Attempt>;
}

export interface Folders {
  /** Whole inputs. */
  readonly whole: string;
  /** For one attempt; emptied before. */
  readonly work: string;
}

export interface Attempt {
  readonly how: string;
  readonly mustRefuse: boolean;
  run(): Promise<unknown>;
}

const sameName = (name: string): string => name;
const silent = { note() {}, progress() {}, stopping: () => false };

async function readWeights(folder: string): Promise<void> {
  const { checkpoint, actual, weights } = await openMember("model", folder, sameName);
  try {
    for (const [name, stored] of actual) {
      const dtype = checkpoint.entry(stored)?.dtype ?? "";
      if (/^(F|BF)\d+$/.test(dtype)) await weights(name);
      else await checkpoint.read(stored);
    }
  } finally {
    await checkpoint.close();
  }
}

/** Whether a safetensors file is in order, by the format's own rules. */
export function isSound(bytes: Buffer): boolean {
  const sizes: Record<string, number> = {
    F64: 8,
    F32: 4,
    F16: 2,
    BF16: 2,
    I64: 8,
    I32: 4,
    I16: 2,
    I8: 1,
    U8: 1,
    BOOL: 1,
  };
  try {
    const length = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.subarray(8, 8 + length).toString()) as Record<string, never>;
    if (8 + length > bytes.length) return false;
    const parts = Object.entries<{ dtype: string; shape: number[]; data_offsets: [number, number] }>(header)
      .filter(([name]) => name !== "__metadata__")
      .map(
        ([
          ,
          {
            dtype,
            shape,
            data_offsets: [from, to],
          },
        ]) => {
          const known = sizes[dtype];
          const count = shape.reduce((product, one) => product * one, 1);
          const isWhole = shape.every((one) => Number.isInteger(one) && one >= 0);
          if (known === undefined) return { from, to };
          return { from, to: isWhole && to - from === count * known ? to : NaN };
        },
      )
      .toSorted((a, b) => a.from - b.from);
    let end = 0;
    for (const { from, to } of parts) {
      if (from !== end || !(to >= from)) return false;
      end = to;
    }
    return end === bytes.length - 8 - length;
  } catch {
    return false;
  }
}

/** Damages a safetensors file: its header as JSON, or any bytes. */
function damageWeights(random: PRNG, bytes: Buffer): Damaged {
  const length = Number(bytes.readBigUInt64LE(0));
  if (below(random, 2) === 0) {
    const damaged = damageBytes(random, bytes);
    return { ...damaged, mustRefuse: !isSound(damaged.bytes) };
  }
  const header = damageJson(random, bytes.subarray(8, 8 + length));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(
    BigInt(pick(random, [header.bytes.length, header.bytes.length, header.bytes.length, 2 ** 40])),
  );
  const made = Buffer.concat([size, header.bytes, bytes.subarray(8 + length)]);
  return { bytes: made, how: `header: ${header.how}`, mustRefuse: !isSound(made) };
}

/** A target of whole folders, of each of which one file is damaged. */
function ofFolders(
  name: string,
  share: number,
  cases: readonly { folder: string; file: string; damage: (random: PRNG, bytes: Buffer) => Damaged }[],
  run: (folder: string, file: string) => Promise<unknown>,
): Target {
  return {
    name,
    share,
    async attempt(random, { whole, work }) {
      const { folder, file, damage } = random ? pick(random, cases) : cases[0]!;
      await rm(work, { recursive: true, force: true });
      await mkdir(work, { recursive: true });
      await cp(join(whole, folder), work, { recursive: true });
      if (!random) return { how: "whole", mustRefuse: false, run: () => run(work, file) };
      const { bytes, how, mustRefuse = false } = damage(random, await readFile(join(work, file)));
      await writeFile(join(work, file), bytes);
      return { how: `${folder}/${file}: ${how}`, mustRefuse, run: () => run(work, file) };
    },
  };
}

const cases = (folders: readonly string[], file: string, damage: (random: PRNG, bytes: Buffer) => Damaged) =>
  folders.map((folder) => ({ folder, file, damage }));

/** A cut file of a kind that says how long it is. */
function damageSized(random: PRNG, bytes: Buffer): Damaged {
  const damaged = damageBytes(random, bytes);
  return { ...damaged, mustRefuse: damaged.bytes.length < bytes.length / 2 };
}

export const familiesTried = [
  "bert-relu",
  "roberta",
  "camembert",
  "gpt2",
  "llama-linear",
  "mistral",
  "opt",
  "qwen2",
  "t5",
  "vit",
  "clip",
];
const pictures = ["colour.png", "palette.png", "half.jpg", "cmyk.jpg", "progressive.jpg"];

/** A task of every kind that is none of classes. */
export const ownKinds: readonly Task[] = [
  makeTask("stars", { kind: "regression" }),
  makeTask("topics", { kind: "multi-label", labels: ["a", "b", "c"] }),
  makeTask("entities", { kind: "tokens", labels: ["O", "B-X"] }),
  makeTask("places", { kind: "span" }),
];

/** Reads data by what the file is called. */
async function readData(folder: string, file: string, task: Task): Promise<void> {
  const path = join(folder, file);
  if (file.endsWith(".npz")) await readNpz(path, ["images", "labels"]);
  else if (file.includes("idx")) await readIdx(path);
  else if (/\.(png|jpg)$/.test(file)) (await loadDecoder())(await readFile(path), path);
  else await readExamples(path, task);
}

export async function targetsOf(): Promise<Target[]> {
  const registry = await loadTasks();
  const rte = registry.get("rte");
  if (!rte) throw new Error("no task rte");
  return [
    ofFolders(
      "safetensors: header and body",
      3700,
      cases(["weights"], "model.safetensors", damageWeights),
      readWeights,
    ),
    ofFolders(
      "model.safetensors.index.json",
      1250,
      cases(["sharded"], "model.safetensors.index.json", damageJson),
      readWeights,
    ),
    ofFolders(
      `config.json (${familiesTried.length} families)`,
      1850,
      cases(familiesTried, "config.json", damageJson),
      async (folder) => {
        const { family, model } = await readModel(folder);
        const base = await openMember("base", folder, family.canonical);
        try {
          checkFamily({ base, experts: [], close: () => Promise.resolve() }, model);
          for (const name of model.parameters.keys()) await base.weights(name);
        } finally {
          await base.checkpoint.close();
        }
      },
    ),
    ofFolders(
      "adapter_config.json and adapters' weights",
      1100,
      [
        ...cases(["lora", "ia3"], "a/adapter_config.json", damageJson),
        ...cases(["lora", "ia3"], "a/adapter_model.safetensors", damageWeights),
      ],
      async (folder) => {
        const base = await openMember("base", join(folder, "base"), sameName);
        try {
          const expert = await openExpert({ label: "a", folder: join(folder, "a") }, base, sameName);
          for (const name of expert.actual.keys()) await expert.weights(name);
          await expert.checkpoint.close();
        } finally {
          await base.checkpoint.close();
        }
      },
    ),
    ofFolders(
      "tokenizer.json, tokenizer_config.json",
      1500,
      [
        ...cases(["tokenizer"], "tokenizer.json", damageJson),
        ...cases(["bpe"], "tokenizer_config.json", damageJson),
        ...cases(["bpe"], "tokenizer.json", damageJson),
      ],
      async (folder) => {
        await vocabularyIn(folder);
        const tokenizer = await loadTokenizer(folder, 64);
        for (const text of ["a plain text", "", "ü 漢字 <s> \u0000", "x".repeat(3000)])
          tokenizer.encode([text]);
      },
    ),
    ofFolders("tasks.json", 750, cases(["tasks"], "tasks.json", damageJson), (folder) => loadTasks(folder)),
    ofFolders(
      "prompt templates",
      600,
      cases(["prompts"], "rte/templates.yaml", damageText),
      async (folder) => {
        const example = parseExample(
          { where: "x", fields: { premise: "It rains.", hypothesis: "It is wet.", label: 0 } },
          rte,
        );
        if (!example) throw new Error("no example");
        for (const template of (await loadPrompts(folder)).of(rte)) template.put(example);
      },
    ),
    ofFolders(
      "jsonl, csv, tsv, parquet, arrow, npz, idx, png, jpeg",
      3700,
      [
        ...cases(["data"], "test.jsonl", damageText),
        ...cases(["data"], "test.csv", damageText),
        ...cases(["data"], "test.tsv", damageText),
        ...cases(["data"], "test.parquet", damageSized),
        ...cases(["data"], "test.arrow", damageSized),
        ...cases(["data"], "test.npz", damageSized),
        ...cases(["data"], "t10k-images-idx3-ubyte", damageSized),
        ...cases(["data"], "t10k-images-idx3-ubyte.gz", damageSized),
        ...pictures.flatMap((file) => cases(["pictures"], file, damageSized)),
      ],
      (folder, file) => readData(folder, file, rte),
    ),
    ofFolders(
      "rows of numbers, labels, tags and spans",
      1000,
      ownKinds.flatMap(({ id }) => cases(["kinds"], `${id}/test.jsonl`, damageText)),
      async (folder, file) => {
        const [id = ""] = file.split("/");
        await inferTask({ id, data: folder, config: undefined });
        await readExamples(join(folder, file), lookUp(new Map(ownKinds.map((one) => [one.id, one])), id));
      },
    ),
    ofFolders("cards of models", 500, cases(["card"], "README.md", damageText), async (folder) => {
      const lineage = await lineageOf([{ label: "base", folder }]);
      metadataText({ name: "x", adapter: false, method: "y", lineage, rows: [] });
    }),
    ofFolders("mergekit's YAML, to the merge", 1500, cases(["mergekit"], "merge.yml", damageText), (folder) =>
      mergeByMergekitFile(
        join(folder, "merge.yml"),
        { out: join(folder, "out"), shardSize: 1e9, threads: 0, seed: 0, overwrite: true },
        silent,
      ),
    ),
    ofFolders("train-merge's YAML", 1000, cases(["settings"], "settings.yaml", damageText), (folder) =>
      loadSettings({}, join(folder, "settings.yaml")),
    ),
    ofFolders(
      "an earlier run's folder",
      1900,
      ["results.json", "run.json", "coefficients.json", "state.json", "merge.json"]
        .flatMap((file) => cases(["run"], file, damageJson))
        .concat(cases(["run"], "training.jsonl", damageText)),
      async (folder, file) => {
        if (file === "state.json") {
          const saved = (await stateFile.read(folder))?.identity;
          await loadState(folder, saved ?? {});
          return;
        }
        for (const one of [resultsFile, runFile, coefficientsFile, mergeFile]) await one.read(folder);
        await readLog(folder);
        await recipeOfMerge(folder);
        await writeReport(folder);
      },
    ),
  ];
}
