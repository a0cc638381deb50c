import { z } from "zod";
import { engineNames } from "../backend/engines.js";
import { above, anyNumber, atLeast, between, bytes, flag, listOf, share, wholeNumber } from "./numbers.js";
import { gateNames, granularities } from "../merge/table.js";
import { basePackings, packings } from "../merge/packing.js";
import { blockChoices, residencyChoices } from "../plan/memory.js";
import { decays } from "../train/adamw.js";
import { tokensAPass } from "../tasks/batches.js";
import { inputSettings, type Setting } from "./input-settings.js";
import { writeForms } from "../checkpoint/write-form.js";
import { trainedMethods, treatments, variants } from "./trained.js";
import { divergences, lessonTexts, trainLosses } from "../train/passes.js";

const toggle = { argument: "", schema: flag } as const;

/**
 * Every setting of a run. The command line's options, the keys of a config file and the messages about both come
 * from this one list (option `--val-per-task`, key `val-per-task`).
 */
export const settings = {
  ...inputSettings,
  out: {
    argument: "<folder>",
    schema: z.string().optional(),
    help: "where to write (default: merged/<family>-<tasks>)",
  },
  method: {
    argument: "<name>",
    schema: z.enum(trainedMethods).default("supermerge"),
    help:
      "supermerge, or AdaMerging's settings: adamerging (layer-wise; task-wise with " +
      "--granularity model), adamerging++ (on treated task vectors)",
  },
  variant: {
    argument: "<name>",
    schema: z.enum(variants).default("original"),
    help: "whose AdaMerging: the authors', or fusion_bench's (no clamp, twice the steps, one batch)",
  },
  treat: {
    argument: "<name>",
    schema: z.enum(treatments).default("none"),
    help:
      "what is done to the task vectors before coefficients are trained: none, ties (trimmed, " +
      "of the elected signs), dare, tsv-m (each task's singular vectors, orthogonal to the others', times 2)",
  },
  trim: {
    argument: "<x>",
    schema: share().default(0.2),
    help: "part of a task vector that --treat ties keeps",
  },
  dareP: {
    argument: "<x>",
    schema: between(0, 0.999).default(0.9),
    help: "chance of an entry to be dropped by --treat dare",
  },
  adaptOn: {
    argument: "<split>",
    schema: z.enum(["validation", "test"]).default("validation"),
    help:
      "what is trained on: validation examples, or (for a loss without labels) the test " +
      "inputs, as AdaMerging's tables have it",
  },
  batchesPerStep: { argument: "<n>", schema: wholeNumber().default(1), help: "batches of each task a step" },
  steps: { argument: "<n>", schema: wholeNumber(0).default(100), help: "optimiser steps" },
  lr: {
    argument: "<x>",
    schema: above(0).default(0.03),
    help: "learning rate of AdamW",
  },
  minutes: {
    argument: "<n>",
    schema: above(0).optional(),
    help:
      "take about so long: steps, examples and what is measured are fitted to it by what this machine was " +
      "found to do",
  },
  warmup: { argument: "<n>", schema: wholeNumber(0).default(0), help: "steps of linear warm-up" },
  decay: {
    argument: "<name>",
    schema: z.enum(decays).default("none"),
    help: `learning-rate decay after it: ${decays.join(", ")}`,
  },
  weightDecay: {
    argument: "<x>",
    schema: atLeast(0).default(0),
    help: "AdamW's decay of the raw coefficients",
  },
  batchSize: { argument: "<n>", schema: wholeNumber().default(16), help: "examples of each task a step" },
  taskWeights: {
    argument: "<numbers>",
    schema: z.preprocess(
      listOf,
      z
        .array(atLeast(0))
        .refine((list) => list.some((w) => w > 0), "one weight must be above 0")
        .optional(),
    ),
    help: "weight of each task's loss, in the order of --tasks (default: all 1)",
  },
  holdout: {
    argument: "<x>",
    schema: between(0, 0.9).default(0.25),
    help:
      "part of the validation examples that is not trained on but chooses the best step (none " +
      "for a loss without labels)",
  },
  gate: {
    argument: "<name>",
    schema: z.enum(gateNames).default("tanh"),
    help: `what bounds a coefficient: ${gateNames.join(", ")}`,
  },
  init: {
    argument: "<x>",
    schema: z
      .union([z.literal("search"), anyNumber()], { error: "it must be a number, or search" })
      .default("search"),
    help:
      "coefficient that every entry starts from; search takes the λ that task arithmetic finds " +
      "on validation (0.3 for a loss that may not look at labels)",
  },
  granularity: {
    argument: "<name>",
    schema: z.enum(granularities).default("tensor"),
    help: `what shares a coefficient: ${granularities.join(", ")}`,
  },
  loss: {
    argument: "<name>",
    schema: z.enum(trainLosses).default("cross-entropy"),
    help:
      `what is minimised: ${trainLosses.join(", ")} (all but the first use no labels: the entropies, what each ` +
      "expert says, and block by block what each expert's own block makes; steps are those of a block then)",
  },
  distilOn: {
    argument: "<texts>",
    schema: z.enum(lessonTexts).default("own"),
    help:
      "texts that --loss distillation of a language model is on: the expert's own continuations of the prompts, or " +
      "those given by the data",
  },
  divergence: {
    argument: "<name>",
    schema: z.enum(divergences).default("forward"),
    help: "Kullback–Leibler, token by token: forward (of the merge from the expert), or reverse",
  },
  temperature: {
    argument: "<x>",
    schema: above(0).default(1),
    help: "what both are softened by in distillation, token by token",
  },
  teacherTokens: {
    argument: "<n>",
    schema: wholeNumber().default(64),
    help: "how many of an expert's likeliest tokens are kept of each prediction; the others count as one",
  },
  pull: {
    argument: "<x>",
    schema: atLeast(0).default(0),
    help: "how strongly coefficients are pulled to where they start (half the squared distance, times that)",
  },
  shrink: {
    argument: "<x>",
    schema: atLeast(0).default(0),
    help: "how strongly coefficients are pulled to 0 (the sum of their sizes, times that)",
  },
  average: {
    argument: "<x>",
    schema: between(0, 0.9999).default(0),
    help: "keeps a running mean of the tables, of which each step keeps this part: what is scored and written",
  },
  seed: {
    argument: "<n>",
    schema: wholeNumber(0).default(0),
    help: "draws the validation examples and orders the batches",
  },
  backend: {
    argument: "<name>",
    schema: z.enum(["auto", ...engineNames]).default("auto"),
    help: `engine: auto, ${engineNames.join(", ")}`,
  },
  dtype: {
    argument: "<name>",
    schema: z.enum(["auto", "F32", "F16", "BF16"]).default("auto"),
    help: "output type: auto (the base's), F32, F16, BF16",
  },
  write: {
    argument: "<form>",
    schema: z.enum(writeForms).default("auto"),
    help:
      "what the result is written as: auto (an adapter where all experts are PEFT adapters of " +
      "one kind), model (adapters folded in), adapter",
  },
  shardSize: {
    argument: "<size>",
    schema: bytes.default(5e9),
    help: "largest weight file, such as 500MB or 5GB",
  },
  residency: {
    argument: "<name>",
    schema: z.enum(residencyChoices).default("auto"),
    help: `where the task vectors live: ${residencyChoices.join(", ")} (auto: the first that fits the budget)`,
  },
  blocks: {
    argument: "<when>",
    schema: z.enum(blockChoices).default("auto"),
    help: "merge and run one block of the model at a time: auto, on, off",
  },
  pack: {
    argument: "<name>",
    schema: z.enum(packings).default("f32"),
    help: `how task vectors are kept while training: ${packings.join(", ")}`,
  },
  packBase: {
    argument: "<name>",
    schema: z.enum(basePackings).default("f32"),
    help:
      "how the base is kept on the device while training: f32, file (as its file has it: bf16 and f16 without loss), " +
      "int8, int4; the result is written from the exact one",
  },
  density: {
    argument: "<x>",
    schema: share().default(0.2),
    help: "part of each tensor's task vector that --pack sparse keeps, the largest",
  },
  allowPartial: {
    ...toggle,
    help: "merge even where tensors of the backbone have no partner; they stay as the base has them",
  },
  allowMismatch: { ...toggle, help: "merge even where the models' configs are of unlike architectures" },
  strict: {
    ...toggle,
    help: "refuse what is only told otherwise: task vectors that stand out, an expert that is the base",
  },
  dequantise: {
    ...toggle,
    help: "read weights that FP8 or bitsandbytes packed into few bits as the numbers that they stand for",
  },
  overwrite: { ...toggle, help: "write over a finished result in --out" },
  memoryBudget: {
    argument: "<size>",
    schema: bytes.optional(),
    help: "device memory a run may take, such as 4GB (default: what the machine has)",
  },
  microBatch: {
    argument: "<n>",
    schema: wholeNumber().default(tokensAPass),
    help: "tokens that share one pass through the model; what is more runs in several, added up",
  },
  evalEvery: {
    argument: "<n>",
    schema: wholeNumber().default(10),
    help: "steps between looks at the held-out loss",
  },
  patience: {
    argument: "<n>",
    schema: wholeNumber().optional(),
    help: "stop where the held-out loss has found nothing better for so many steps (default: take all steps)",
  },
} satisfies Record<string, Setting>;
