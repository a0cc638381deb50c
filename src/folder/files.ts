/**
 * What a run leaves in its folder: the name of every file, and one schema for each JSON file, by which everybody
 * writes, reads and checks it. Folders of earlier versions are read, so a key that came later has a default or is
 * optional. Files of a tree of merges: tree-files.ts.
 */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { gateNames } from "../merge/table.js";
import { residencies } from "../merge/residency.js";
import { blockChoices } from "../plan/memory.js";
import type { InputHash } from "../report/card.js";
import { resultRow } from "../report/rows.js";
import { splitNames } from "../tasks/split.js";
import { jsonFile } from "../checkpoint/files.js";
import { UserError } from "../errors.js";

/** Files that are no JSON, and folders. */
export const fileNames = {
  card: "README.md",
  report: "report.html",
  table: "table.md",
  config: "config.json",
  trainingLog: "training.jsonl",
  coefficientsCsv: "coefficients.csv",
  coefficientsSvg: "coefficients.svg",
  coefficientsPng: "coefficients.png",
  tensorboard: "tensorboard",
  heads: "heads",
  tasks: "tasks",
  mergekit: "mergekit_config.yml",
  head: "head.safetensors",
  finetuneTensors: "finetune.safetensors",
  /** What a run works with and removes: treated experts, products of adapters. */
  treated: "treated",
  products: "products",
  /** Stands in those from the start: what a kill left of them is known by it. */
  scratchMark: ".train-merge-scratch",
  /** Merges that a mergekit file of several documents makes on its way. */
  parts: "parts",
  /** Of a comparison: a file for each method, and its model. */
  methods: "methods",
  models: "models",
} as const;

/** A file that the numbers depend on. */
const inputHash: z.ZodType<InputHash> = z.object({ role: z.string(), file: z.string(), sha256: z.string() });

const trainedSettings = z
  .looseObject({
    tasks: z.array(z.string()).readonly(),
    seed: z.number(),
    maxLength: z.number(),
    valPerTask: z.number(),
    split: z.enum(splitNames),
    score: z.enum(["sum", "mean"]),
    treat: z.string(),
    pack: z.string(),
    gate: z.enum(gateNames),
    columns: z.record(z.string(), z.string()),
    testPerTask: z.number(),
    /** The step that was written. */
    chosenStep: z.number(),
    /** Of a tree of merges: which, and how long its table was trained on afterwards. */
    tree: z.looseObject({ root: z.string(), polish: z.number() }),
  })
  .partial();

/** A file as it was read or written. */
const hashedFile = z.object({ file: z.string(), sha256: z.string() });

/** results.json: written last, so a folder that has it is finished. */
export const resultsFile = jsonFile(
  "results.json",
  z.looseObject({
    rows: z.array(resultRow).readonly(),
    synthetic: z.boolean().default(false),
    // As they stand in the file: their order is the order of the report.
    settings: z.custom<z.infer<typeof trainedSettings>>((value) => trainedSettings.safeParse(value).success),
    inputs: z.array(inputHash).readonly().default([]),
    outputs: z.array(hashedFile).readonly().default([]),
  }),
  { marks: ["rows", "search", "settings"] },
);

/** run.json: what may differ between two equal runs. */
export const runFile = jsonFile(
  "run.json",
  z.looseObject({
    version: z.string(),
    engine: z.string(),
    platform: z.string(),
    places: z
      .object({
        base: z.string(),
        sources: z.array(
          z.object({
            label: z.string(),
            folder: z.string(),
            tasks: z.array(z.string()).readonly().optional(),
            merged: z.boolean().optional(),
          }),
        ),
      })
      .optional(),
    /** The data folder, and that of the templates. */
    data: z.string().optional(),
    prompts: z.string().optional(),
    seconds: z.record(z.string(), z.number()).default({}),
    peakMemoryBytes: z.number().optional(),
    devicePeakBytes: z.number().optional(),
    planned: z.object({ device: z.number().optional() }).optional(),
  }),
  { paths: true },
);

/** coefficients.json: of every layer and task, before the gate and after it. */
export const coefficientsFile = jsonFile(
  "coefficients.json",
  z.object({
    tasks: z.array(z.string()).readonly(),
    layers: z.array(z.object({ id: z.string(), names: z.array(z.string()).readonly() })),
    entries: z.array(
      z.object({ layer: z.string(), task: z.string(), raw: z.number(), coefficient: z.number() }),
    ),
  }),
);
export type Coefficients = z.infer<typeof coefficientsFile.schema>;

const tableSchema = z.object({ rows: z.number(), columns: z.number(), values: z.array(z.number()) });

/** state.json: where a training stands. JSON keeps every digit of a double. */
export const stateFile = jsonFile(
  "state.json",
  z.object({
    /** What the state was made with: settings, the inputs' hashes. */
    identity: z.record(z.string(), z.unknown()),
    raw: tableSchema,
    mean: tableSchema.optional(),
    moments: z.object({ first: z.array(z.number()), second: z.array(z.number()), step: z.number() }),
    best: z.object({ step: z.number(), loss: z.number(), raw: tableSchema }).optional(),
    /** What the table's rows and columns are, and how many steps there will be, for who looks at it. */
    labels: z
      .object({ layers: z.array(z.string()), experts: z.array(z.string()), steps: z.number().optional() })
      .optional(),
  }),
  { marks: ["identity", "raw", "moments"], compact: true },
);

/** Of a state's identity: where the task vectors were. */
export const placementIdentity = z.object({
  residency: z.enum(residencies),
  blocks: z.enum(blockChoices).exclude(["auto"]),
});

const tokenRow = z.object({ model: z.string(), token: z.string().optional(), id: z.number().optional() });
const recordedRule = z.object({
  source: z.union([z.literal("zero"), tokenRow]).optional(),
  force: z.boolean().optional(),
});
const tokenizerChoice = z.union([
  z.literal("base"),
  z.object({
    source: z.string(),
    tokens: z.record(z.string(), recordedRule).optional(),
    padTo: z.number().optional(),
  }),
]);

/** What merge.json says of a merge. */
const mergeRecord = z.object({
  method: z.string(),
  values: z.unknown().optional(),
  base: z.string().optional(),
  models: z.array(z.string()).readonly(),
  /** Where those lie that a mergekit file names. */
  places: z.record(z.string(), z.string()).readonly().optional(),
  /** Of its draws. */
  seed: z.number().optional(),
  /** What they are called: random draws depend on it. */
  labels: z.array(z.string()).readonly().optional(),
  /** The kind, where the result is an adapter. */
  adapter: z.string().optional(),
  /** The mergekit file that it was made by. */
  from: z.string().optional(),
  /** The files that were read. */
  inputs: z
    .array(hashedFile.extend({ folder: z.string() }))
    .readonly()
    .optional(),
  /** What was done with unlike vocabularies. */
  tokenizer: tokenizerChoice.optional(),
  /** What is not merged, was let through (`--allow-…`) or stands out; a line each. */
  notes: z.array(z.string()).readonly().optional(),
});
export type MergeRecord = Readonly<z.infer<typeof mergeRecord>>;

/** merge.json: a merge without training, by which its folder is known while it is written. */
export const mergeFile = jsonFile(
  "merge.json",
  z.looseObject({
    version: z.string(),
    ...mergeRecord.shape,
    outputs: z.array(hashedFile).readonly().optional(),
  }),
  { marks: ["version", "method", "models"], paths: true },
);

/** compare.json: a comparison, while it is made. */
export const compareFile = jsonFile(
  "compare.json",
  z.object({ version: z.string(), methods: z.array(z.string()) }),
  { marks: ["version", "methods"] },
);

/** reproduce.json: an experiment, while it is made. */
export const reproduceFile = jsonFile("reproduce.json", z.object({ version: z.string(), id: z.string() }), {
  marks: ["version", "id"],
});

const finetuneScore = z.object({
  task: z.string(),
  accuracy: z.number().optional(),
  metric: z.string().optional(),
  loss: z.number(),
});

/** finetune.json: where a fine-tuning stands, and at its end what it came to. */
export const finetuneFile = jsonFile(
  "finetune.json",
  z.looseObject({
    identity: z.string(),
    step: z.number().optional(),
    /** Within an epoch: the sum of its losses so far. */
    lossSum: z.number().optional(),
    best: z.object({ loss: z.number(), scores: z.array(finetuneScore).readonly() }).optional(),
    /** Tensor → the steps that it took part in. */
    taken: z.record(z.string(), z.number()).optional(),
    version: z.string().optional(),
    settings: z.record(z.string(), z.unknown()).optional(),
    scores: z.array(finetuneScore).readonly().optional(),
  }),
  { marks: ["identity"] },
);

/** methods/<name>.json of a comparison: what a method came to, by which a stopped comparison goes on. */
export const methodFile = (name: string) =>
  jsonFile(
    `${name}.json`,
    z.object({
      identity: z.string(),
      rows: z.array(resultRow),
      /** Of all, the search among it; and of the merge (or the training) alone. */
      seconds: z.object({ total: z.number(), merge: z.number() }),
      values: z.record(z.string(), z.unknown()),
      search: z
        .array(
          z.object({
            values: z.record(z.string(), z.union([z.number(), z.string()])),
            accuracy: z.number(),
            loss: z.number(),
          }),
        )
        .optional(),
    }),
  );
export type MethodResult = z.infer<ReturnType<typeof methodFile>["schema"]>;

export const logLine = z.object({
  step: z.number(),
  loss: z.number().optional(),
  validation: z.object({ loss: z.number(), accuracy: z.array(z.number()) }).optional(),
  coefficients: z.array(z.number()).optional(),
});
/** One line of training.jsonl. */
export type LogLine = z.infer<typeof logLine>;

/** @throws UserError where a line is damaged */
export function readLogLine(line: string, where: string): LogLine {
  try {
    return logLine.parse(JSON.parse(line));
  } catch {
    throw new UserError(`${where}: it is damaged; remove the line, or start the run anew`);
  }
}

/** A run's training.jsonl; empty where it has none, as a tree's root. */
export async function readLog(folder: string): Promise<LogLine[]> {
  const path = join(folder, fileNames.trainingLog);
  if (!existsSync(path)) return [];
  const lines = (await readFile(path, "utf8")).split("\n").filter(Boolean);
  return lines.map((line, i) => readLogLine(line, `${path}: line ${i + 1}`));
}
