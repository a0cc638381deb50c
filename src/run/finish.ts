import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { tfjsVersion, watchMemory } from "../backend/index.js";
import { isAdapter } from "../checkpoint/folder.js";
import { keepChatTemplate } from "../checkpoint/chat-template.js";
import { writeText } from "../checkpoint/files.js";
import {
  bestPoint,
  evaluateBaselines,
  searchLambda,
  type MergeContext,
  type SearchPoint,
} from "../evaluate/baselines.js";
import { columnOf } from "../merge/source.js";
import type { Table } from "../merge/table.js";
import { loadTaskVectors } from "../merge/vectors.js";
import { version } from "../package.js";
import { chosenDType } from "../tensor/dtype.js";
import { modelCard, type CardInput } from "../report/card.js";
import type { ResultRow } from "../report/rows.js";
import { evaluateFolder } from "./evaluate.js";
import { writeMergekitConfig } from "./export.js";
import { keepEmbeddingFiles } from "../inputs/embedding-form.js";
import { lineageOf } from "../inputs/lineage.js";
import { mergeContextOf, type Inputs } from "../inputs/open.js";
import type { MergeHooks, MergeOptions, MergeResult } from "../config/options.js";
import type { PackingCost } from "./packing.js";
import { writeTaskModels } from "./task-models.js";
import { writeEvents } from "../folder/events.js";
import { classNamed, classWithHead, recorded } from "../inputs/data.js";
import { fileNames, resultsFile, runFile } from "../folder/files.js";
import { withoutPlaces } from "../folder/places.js";
import { isOfVectors, lackAnswers } from "../tasks/decisions.js";
import { customaryProcessor, processorFile } from "../tasks/pixels.js";
import type { ImageShape } from "../models/types.js";
import { hashWritten, writeHead } from "../folder/output.js";
import { writeReport } from "../folder/report.js";
import { writeCoefficients, writeModel } from "../folder/weights.js";
import type { WriteOptions } from "../mergers/write-adapted.js";

/** A merge under way. */
export interface MergeRun {
  readonly out: string;
  readonly inputs: Inputs;
  readonly options: MergeOptions;
  readonly hooks: MergeHooks;
}

/** A finished table and how it came about. */
export interface Finished {
  readonly raw?: Table | undefined;
  /** After the gate; undefined where the weights were written already, by a method that no table can say. */
  readonly table?: Table | undefined;
  /** Its row's name in the results. */
  readonly method: string;
  /** Over the heat-map. */
  readonly title: string;
  /** Where task vectors were packed: what that cost. */
  readonly packing?: PackingCost | undefined;
  readonly search: readonly SearchPoint[];
  readonly lambda: number;
  /** Recorded beside the options. */
  readonly settings?: Readonly<Record<string, unknown>> | undefined;
  /** What may differ between two equal runs: times, bytes. */
  readonly run: Readonly<Record<string, unknown>>;
}

/**
 * Runs with the experts' own task vectors, which are loaded for as long as it takes where those trained
 * on were treated.
 */
export async function withExperts<T>(inputs: Inputs, run: (context: MergeContext) => Promise<T>): Promise<T> {
  if (!inputs.treated) return run(mergeContextOf(inputs));
  const {
    family: { base, experts },
    plain: model,
    plan,
  } = inputs;
  const vectors = await loadTaskVectors(
    { base, columns: experts.map(columnOf) },
    [...model.parameters.keys()],
    { residency: plan.chosen.residency, tables: model.tables },
  );
  try {
    return await run({ ...mergeContextOf(inputs), model, vectors });
  } finally {
    vectors.dispose();
  }
}

/** Tells how far the search of λ is. */
export const searchProgress =
  ({ progress }: Pick<MergeHooks, "progress">) =>
  (done: number, of: number): void =>
    progress("task arithmetic: search of λ", done, of);

/**
 * Test rows of the methods that train nothing. They are of the experts as they are, whatever was done
 * to their task vectors for training.
 */
async function measureBaselines(
  inputs: Inputs,
  options: MergeOptions,
  { lambda }: Finished,
  hooks: MergeHooks,
): Promise<ResultRow[]> {
  const { tasks, treated } = inputs;
  return withExperts(inputs, async (context) => {
    if (!treated)
      return evaluateBaselines(context, tasks, lambda, { seed: options.seed, progress: hooks.progress });
    const own = lackAnswers(tasks)
      ? lambda
      : bestPoint(await searchLambda(context, tasks, searchProgress(hooks))).lambda;
    return evaluateBaselines(context, tasks, own, { seed: options.seed, progress: hooks.progress });
  });
}

/** How a reader of the card uses the folder: see modelCard. */
function cardUse({ head, plain, tasks }: Inputs): CardInput["use"] {
  if (tasks.some(isOfVectors)) return "vectors";
  if (!head) return "scores";
  if (plain.image && head.bias === undefined) return "embeddings";
  return "heads";
}

/** What stands out of the inputs, without where they lie. */
const notesOf = ({ notes, locations: { base, sources } }: Inputs): string[] =>
  withoutPlaces(notes, [base, ...sources.map(({ folder }) => folder)]);

/** The card: README.md. */
async function writeCard(
  out: string,
  inputs: Inputs,
  options: MergeOptions,
  {
    rows,
    settings,
    ...flags
  }: Pick<CardInput, "rows" | "settings" | "coefficients" | "tree" | "synthetic" | "method">,
): Promise<void> {
  const { name, family, head, heads, hashes } = inputs;
  const headClasses = head
    ? heads.map(({ checkpoint }) => classWithHead(checkpoint.config) ?? "AutoModel")
    : [];
  const headClass = head ? headClasses[0] : classNamed(family.base.checkpoint.config);
  const card = modelCard({
    name,
    tasks: options.tasks,
    headClass: headClass ?? "AutoModel",
    headClasses,
    use: cardUse(inputs),
    adapter: isAdapter(out),
    settings,
    rows,
    inputs: hashes,
    version,
    valPerTask: options.valPerTask,
    notes: notesOf(inputs),
    lineage: await lineageOf([
      { label: "base", folder: inputs.locations.base },
      ...inputs.locations.sources.map(({ label, folder }) => ({ label, folder })),
    ]),
    ...flags,
  });
  await writeText(join(out, fileNames.card), card);
}

/** run.json: what may differ between two equal runs. */
async function writeRun(
  out: string,
  inputs: Inputs,
  prompts: string | undefined,
  run: Readonly<Record<string, unknown>>,
): Promise<void> {
  const { plan, locations, data } = inputs;
  const notes = notesOf(inputs);
  await runFile.write(out, {
    version,
    tfjs: tfjsVersion,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    engine: plan.engine,
    places: {
      base: resolve(locations.base),
      sources: locations.sources.map((source) => ({ ...source, folder: resolve(source.folder) })),
    },
    data: resolve(data),
    ...(prompts !== undefined && { prompts: resolve(prompts) }),
    ...(notes.length && { notes }),
    ...run,
    peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
    devicePeakBytes: watchMemory().peak(),
    planned: plan.chosen,
  });
}

/**
 * Writes what a table says, from the experts' own files, whatever packing training had: as a model, or where all
 * experts are adapters of one kind, perhaps as an adapter.
 */
export async function writeResult(
  out: string,
  inputs: Inputs,
  table: Table,
  options: WriteOptions,
): Promise<void> {
  const { family, head, vectors, model, plain, columns } = inputs;
  if (model !== plain) {
    const { writeAdapted } = await import("../mergers/write-adapted.js");
    await writeAdapted(out, inputs, table, options);
    return;
  }
  const isRounded = vectors.packing === "bf16" || vectors.packing === "int8" || vectors.baseError > 0;
  const exact = isRounded ? vectors.fromFiles() : vectors;
  const isWhole = exact.packing !== "sparse";
  await writeModel(
    out,
    { family, head, vectors: exact, table, ...(isWhole && { columns }) },
    chosenDType(options.dtype),
    options.shardSize,
  );
}

/** Whoever opens a result must prepare images as they were measured, whether or not its base said how. */
async function keepProcessor(out: string, image: ImageShape | undefined): Promise<void> {
  const path = join(out, processorFile);
  if (image && !isAdapter(out) && !existsSync(path)) await writeText(path, customaryProcessor(image));
}

/**
 * Writes a merge (weights, heads, coefficients, card, results) and measures the written files beside
 * the baselines. The weights are merged from the experts' own files: packing is for training alone, but
 * for trimmed (sparse) task vectors, which are what was trained.
 */
export async function finishMerge(
  { out, inputs, options, hooks }: MergeRun,
  finished: Finished,
): Promise<MergeResult> {
  const { heads, vectors, tasks, plan, data, head } = inputs;
  const { raw, table } = finished;
  const synthetic = tasks.some((task) => task.synthetic);
  if (raw && table) {
    await writeResult(out, inputs, table, options);
    for (const member of heads) await writeHead(out, member, head);
    await writeCoefficients(out, vectors, { raw, gated: table }, finished.title);
  }

  await keepChatTemplate(out, inputs.chatTemplate);
  await keepProcessor(out, inputs.plain.image);
  if (tasks.some(isOfVectors) && !isAdapter(out))
    await keepEmbeddingFiles(out, { width: inputs.plain.width, maxLength: options.maxLength });
  const baselines: ResultRow[] = [];
  if (options.baselines !== false)
    baselines.push(...(await measureBaselines(inputs, options, finished, hooks)));
  hooks.progress(`${finished.method}, from the written files`, 0, 1);
  const merged = await evaluateFolder(
    { ...options, folder: out, base: inputs.locations.base, data, placement: plan.chosen },
    finished.method,
  );
  const rows = [...baselines, ...merged.rows];
  await writeTaskModels(out, inputs.locations.base);
  const settings = { ...recorded(options, plan), ...finished.settings };
  await writeCard(out, inputs, options, {
    rows,
    settings,
    synthetic,
    method: finished.method,
    coefficients: table !== undefined,
    tree: finished.settings?.["tree"] !== undefined,
  });
  await writeRun(out, inputs, options.prompts, finished.run);
  await inputs.checkFiles();
  // Last: a folder with results is a finished one.
  await resultsFile.write(out, {
    rows,
    synthetic,
    search: { "task-arithmetic": finished.search },
    settings,
    inputs: inputs.hashes,
    outputs: await hashWritten(out),
    ...(finished.packing && { packing: finished.packing }),
  });
  if (table) await writeMergekitConfig(out);
  await writeReport(out);
  if (options.tensorboard) await writeEvents(out, options.tasks);
  return { out, rows, synthetic, finished: true };
}
