import { basename, resolve } from "node:path";
import { at } from "../at.js";
import type { AdaptedCheckpoint } from "../checkpoint/adapted.js";
import type { Member } from "../checkpoint/family.js";
import type { TokenizerChoice } from "../checkpoint/joint-vocabulary.js";
import { checkTogether, type Rules } from "../checkpoint/belonging.js";
import { adapterForm, type WriteForm } from "../checkpoint/write-form.js";
import type { MergeHooks } from "../config/options.js";
import { whileHashing } from "../disk/hashes.js";
import { someOf } from "../disk/partners.js";
import { UserError } from "../errors.js";
import { planMerge, writePlanned, type DiskMerge } from "../folder/merge.js";
import { withoutPlaces } from "../folder/places.js";
import { openOutput } from "../folder/output.js";
import type { Method, ParameterValues } from "../methods/types.js";
import { resolveValues } from "../methods/values.js";
import { isTreated } from "../methods/pipeline.js";
import { mergeAdapters } from "./adapters.js";
import { headsAlike } from "./heads.js";
import { withMembers, type NamedFolder } from "./members.js";
import { writeRecorded } from "./output.js";

/** Models by their folders alone: any architecture, no data, no engine. */
export interface ModelsMerge
  extends Pick<DiskMerge, "dtype" | "shardSize" | "threads" | "allowPartial">, Rules {
  readonly method: Method;
  /** Parameters as the user gave them. */
  readonly given: Readonly<Record<string, unknown>>;
  readonly base?: string | undefined;
  readonly models: readonly string[];
  /** What they are called (default: as their folders are). */
  readonly labels?: readonly string[] | undefined;
  readonly out: string;
  /** Where all models are adapters: whether the result is one (default: it is), and of what rank. */
  readonly write?: WriteForm | undefined;
  readonly rank?: number | undefined;
  /** What is done with unlike vocabularies. "base": the base's is kept (without a base, the first model's). */
  readonly tokenizer?: "base" | TokenizerChoice | undefined;
  /** Quantised weights are read as the numbers that they stand for. */
  readonly dequantise?: boolean | undefined;
  /** Writes over a finished result. */
  readonly overwrite?: boolean | undefined;
}

/** Folders' own names, with a number where two have the same. */
export function labelsOf(folders: readonly string[]): string[] {
  const seen = new Map<string, number>();
  return folders.map((folder) => {
    const name = basename(resolve(folder));
    const count = (seen.get(name) ?? 0) + 1;
    seen.set(name, count);
    return count === 1 ? name : `${name}#${count}`;
  });
}

/** The parameters of a merge. @throws UserError for a method that these inputs are not enough for */
function checkedValues({ method, given, base, models }: ModelsMerge): ParameterValues {
  if (base === undefined && !method.baseless)
    throw new UserError(`${method.name} needs the model that the others were fine-tuned from: --base FOLDER`);
  if (method.needs)
    throw new UserError(
      `${method.name} needs data to run the models on: train-merge compare --methods ${method.name} --tasks … --data …`,
    );
  const values = resolveValues(method, given, models.length);
  if (base === undefined && isTreated(values))
    throw new UserError(
      "--dare-p and --lines change task vectors: name the base they are taken against with --base",
    );
  return values;
}

/** The adapters that the inputs are, where an adapter is to be written. */
function adaptersToWrite(
  { method, write = "auto" }: ModelsMerge,
  values: ParameterValues,
  inputs: readonly Member[],
): readonly AdaptedCheckpoint[] | undefined {
  // What is no mean weighs the base too: a model can say that, an adapter of it cannot.
  const weighsBase = method.changesEqual?.(values) ?? false;
  if (weighsBase && write === "adapter")
    throw new UserError(
      `--write adapter: ${method.name} with these parameters weighs the base too, which an adapter cannot ` +
        "express; use --write model, or task-arithmetic",
    );
  return weighsBase ? undefined : adapterForm(inputs, write);
}

/** Merges model folders, tensor by tensor, from disk to disk. Memory: see mergeOnDisk. */
export async function mergeFolders(
  merge: ModelsMerge,
  hooks: Pick<MergeHooks, "note" | "progress" | "stopping">,
): Promise<void> {
  const { method, base: baseFolder, models, out, dequantise, tokenizer } = merge;
  const values = checkedValues(merge);
  const labels = labelsOf(merge.labels ?? models);
  const folders: NamedFolder[] = models.map((folder, i) => ({
    label: at(labels, i),
    folder,
    on: baseFolder,
  }));
  if (baseFolder !== undefined) folders.push({ label: "base", folder: baseFolder });
  const reference = baseFolder === undefined ? 0 : models.length;
  const opening = { reference, hasBase: baseFolder !== undefined, dequantise, tokenizer };
  await withMembers(folders, opening, async (members, files, ofTokens) => {
    const inputs = members.slice(0, models.length);
    const base = members[models.length];
    const together = await checkTogether({ first: at(members, reference), members, base }, merge);
    const notes = [...ofTokens, ...together];
    const adapters = adaptersToWrite(merge, values, inputs);
    if (adapters && typeof tokenizer === "object")
      throw new UserError("--tokenizer: adapters have the tokenizer of their base; use --write model");
    const merged = adapters && headsAlike(merge, adapters);
    const heads = new Set(adapters?.flatMap((one) => one.heads).filter((name) => !merged?.includes(name)));
    if (heads.size) notes.push(`heads of the adapters are left out: ${someOf([...heads])}`);
    const full: DiskMerge = { ...merge, values, base, inputs };
    const planned = adapters ? undefined : planMerge(full);
    if (planned) notes.push(...planned.notes);
    await openOutput(
      out,
      folders.map(({ folder }) => folder),
      merge.overwrite,
    );
    notes.forEach(hooks.note);
    const record = {
      method: method.name,
      values,
      base: baseFolder && resolve(baseFolder),
      models: models.map((folder) => resolve(folder)),
      labels,
      ...(notes.length && { notes: withoutPlaces(notes, [...models, baseFolder ?? out]) }),
      ...(adapters && { adapter: at(adapters, 0).adapter.kind }),
      ...(tokenizer && { tokenizer }),
    };
    const write = async () => {
      if (planned) await writePlanned(out, planned, full, hooks);
      else if (adapters && base)
        await mergeAdapters(out, { ...merge, values, base, inputs }, adapters, hooks);
    };
    await writeRecorded(out, record, () => whileHashing(files, merge.threads, write));
  });
}
