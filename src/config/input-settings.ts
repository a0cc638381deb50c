/** What a run reads: models, data, and how texts are made of it. A part of every setting (settings.ts). */
import { z } from "zod";
import { chatTemplates } from "../tasks/chat-templates.js";
import { columnRoles } from "../tasks/registry.js";
import { splitNames } from "../tasks/split.js";
import { nameList, namedTexts, wholeNumber } from "./numbers.js";

/** One setting: how it is written on the command line, what it may be, and what it means. */
export interface Setting {
  readonly argument: string;
  readonly schema: z.ZodType;
  readonly help: string;
}

export const inputSettings = {
  tasks: { argument: "<names>", schema: nameList, help: "tasks to merge, separated by commas" },
  family: {
    argument: "<name|folder>",
    schema: z.string().optional(),
    help:
      "a folder with base/ and experts/<task>/, or its name under checkpoints/ (default: the " +
      "synthetic family that ships, mini)",
  },
  base: {
    argument: "<folder>",
    schema: z.string().optional(),
    help: "the base model: a Hugging Face folder, or its id on the hub (org/name, org/name@revision)",
  },
  experts: {
    argument: "<folders...>",
    schema: z.union([z.array(z.string()).min(1), z.string().transform((s) => [s])]).optional(),
    help: "one folder that holds a folder a task, or task=FOLDER (or task=org/name) for each",
  },
  data: {
    argument: "<folder>",
    schema: z.string().optional(),
    help: "a folder with <task>/{train,validation,test}.jsonl|tsv|csv (default: the synthetic data that ships)",
  },
  datasets: {
    argument: "<pairs>",
    schema: namedTexts.optional(),
    help:
      "datasets of the hub as data: mood=org/name, org/name:config, or …:config/part where a split has several, " +
      "each with @revision behind it if need be",
  },
  columns: {
    argument: "<pairs>",
    schema: namedTexts.optional(),
    help:
      "columns of the data files, where they have other names: text=body,label=stars, or mood.text=body for one task " +
      `(${columnRoles.join(", ")})`,
  },
  split: {
    argument: "<name>",
    schema: z.enum(splitNames).default("files"),
    help:
      "which examples are which: as the files say; paper: as SuperMerge and TIES draw them from the published " +
      "validation set (Python's shuffle with seed 42), tested on the published test set, or on the rest where that " +
      "hides its labels; tenth: a tenth of the training examples, which `finetune --split tenth` does not train on",
  },
  valPerTask: {
    argument: "<n>",
    schema: wholeNumber().default(32),
    help: "validation examples drawn for each task",
  },
  testPerTask: {
    argument: "<n>",
    schema: wholeNumber().optional(),
    help: "test examples of each task that are measured on, drawn by the seed (default: all)",
  },
  maxLength: { argument: "<n>", schema: wholeNumber(8).default(128), help: "tokens at which texts are cut" },
  prompts: {
    argument: "<path>",
    schema: z.string().optional(),
    help:
      "templates for language models: a file like data/prompts.yaml, or a folder of promptsource's YAML " +
      "(default: those that ship)",
  },
  chatTemplate: {
    argument: "<path>",
    schema: z.string().optional(),
    help:
      `what puts conversations into words: a file of Jinja, or ${[...chatTemplates.keys()].join(", ")} (default: the ` +
      "experts' own, else the base's)",
  },
  score: {
    argument: "<name>",
    schema: z.enum(["sum", "mean"]).default("sum"),
    help: "how a language model scores an answer: the sum of its tokens' log-probabilities, or their mean",
  },
} satisfies Record<string, Setting>;
