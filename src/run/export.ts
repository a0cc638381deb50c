import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import type { z } from "zod";
import { stringify } from "yaml";
import { lookUp } from "../at.js";
import { entryOf, openCheckpoint } from "../checkpoint/folder.js";
import { openMember } from "../checkpoint/family.js";
import { UserError } from "../errors.js";
import { idOfSnapshot } from "../hub/hub.js";
import { coefficientsFile, fileNames, resultsFile, runFile, type Coefficients } from "../folder/files.js";
import { writeText, type JsonFile } from "../checkpoint/files.js";
import { dtypeWords } from "../folder/output.js";
import { readModel } from "../inputs/prepare.js";
import { isFloat, writtenType } from "../tensor/dtype.js";

/** A file of a finished merge by coefficients. @throws UserError where the folder has none */
async function required<S extends z.ZodType>(file: JsonFile<S>, folder: string): Promise<z.output<S>> {
  const found = await file.read(folder);
  if (found === undefined)
    throw new UserError(
      `${folder}: there is no ${file.name}; only a finished merge by coefficients can be exported`,
    );
  return found;
}

/** Canonical name → the base's own, which is what a filter meets where all models call a tensor so. */
async function namesIn(base: string): Promise<ReadonlyMap<string, string>> {
  if (!existsSync(base)) throw new UserError(`${base}: the base that run.json names is not there (any more)`);
  const { family } = await readModel(base);
  const member = await openMember("base", base, family.canonical);
  await member.checkpoint.close();
  return member.actual;
}

/** As a file that is to travel names a model: by its id where it came from the hub. */
const modelOf = (folder: string): string => idOfSnapshot(resolve(folder)) ?? resolve(folder);

/** The same, and a model of this machine by its folder's name alone. */
const portableName = (folder: string): string => idOfSnapshot(resolve(folder)) ?? basename(resolve(folder));

/** Coefficients weight the experts' own task vectors: nothing else can be said in a mergekit file. */
function refuseInexpressible(
  folder: string,
  { treat = "none", pack = "f32" }: { treat?: string | undefined; pack?: string | undefined },
): void {
  if (treat !== "none")
    throw new UserError(
      `${folder}: its coefficients weight task vectors treated with ${treat}, which a mergekit file cannot express`,
    );
  if (pack === "sparse")
    throw new UserError(
      `${folder}: its coefficients weight trimmed task vectors (--pack sparse), which a mergekit file cannot express`,
    );
}

/** Where a task's expert is, as run.json says. */
function expertFolder(
  folder: string,
  task: string,
  sources: readonly { readonly label: string; readonly folder: string }[],
): string {
  const source = sources.find(({ label }) => label === task);
  if (!source) throw new UserError(`${folder}: ${runFile.name} does not say where ${task} is`);
  if (!existsSync(source.folder))
    throw new UserError(
      `${source.folder}: the expert for ${task} that ${runFile.name} names is not there (any more)`,
    );
  return source.folder;
}

/** A task's coefficients, each under a filter that is a tensor's whole name: the family's, and the base's own. */
function filterWeights(
  task: string,
  { layers, entries }: Coefficients,
  stored: ReadonlyMap<string, string>,
): { filter: string; value: number }[] {
  const tensors = new Map(layers.map(({ id, names }) => [id, names]));
  const weights = entries
    .filter((entry) => entry.task === task)
    .flatMap(({ layer, coefficient }) =>
      lookUp(tensors, layer).flatMap((name) =>
        [...new Set([name, stored.get(name) ?? name])].map((filter) => ({ filter, value: coefficient })),
      ),
    );
  // A filter is a part of a name and the first that fits counts: the longer name first, should one hold another.
  return weights.sort((a, b) => b.filter.length - a.filter.length);
}

/**
 * A finished merge by coefficients as a mergekit file: task arithmetic whose weights are the
 * coefficients, each under a filter that is the tensor's whole name. mergekit (or `train-merge merge
 * FILE`) makes the same model from it.
 */
export async function mergekitOf(folder: string, named = modelOf): Promise<string> {
  const coefficients = await required(coefficientsFile, folder);
  const { places } = await required(runFile, folder);
  const { settings } = await required(resultsFile, folder);
  if (!places) throw new UserError(`${runFile.in(folder)}: it does not say where base and experts are`);
  refuseInexpressible(folder, settings);
  const stored = await namesIn(places.base);
  const models = coefficients.tasks.map((task) => ({
    model: named(expertFolder(folder, task, places.sources)),
    parameters: { weight: [...filterWeights(task, coefficients, stored), { value: 0 }] },
  }));
  const checkpoint = await openCheckpoint(folder);
  await checkpoint.close();
  const written = checkpoint.names.map((name) => entryOf(checkpoint, name).dtype).find(isFloat);
  return stringify({
    merge_method: "task_arithmetic",
    base_model: named(places.base),
    models,
    parameters: { normalize: false, lambda: 1 },
    dtype: "float32",
    out_dtype: dtypeWords[writtenType(written ?? "F32")],
  });
}

/**
 * Writes mergekit_config.yml beside a finished merge by coefficients, as mergekit leaves it beside its own; nothing
 * where a mergekit file cannot say what was done.
 */
export async function writeMergekitConfig(out: string): Promise<void> {
  const text = await mergekitOf(out, portableName).catch((error: unknown) => {
    if (error instanceof UserError) return undefined;
    throw error;
  });
  if (text !== undefined) await writeText(join(out, fileNames.mergekit), text);
}
