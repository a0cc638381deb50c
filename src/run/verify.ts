/**
 * Looks at a finished merge anew: are the inputs what they were, is every tensor there in the shape and type that it
 * must have, are its numbers finite, and is a sample of them what the inputs and the record say, worked out in float64
 * by arithmetic of its own.
 */
import { existsSync } from "node:fs";
import { join, relative } from "node:path";
import { at } from "../at.js";
import { refuseIrregular, sha256 } from "../checkpoint/files.js";
import { entryOf, isAdapter, openCheckpoint, type Checkpoint } from "../checkpoint/folder.js";
import { isOptional } from "../checkpoint/names.js";
import { firstNotFinite } from "../checkpoint/numbers.js";
import type { InputHash } from "../disk/hashes.js";
import type { MergePlan } from "../disk/plan.js";
import { plannedTensors } from "../disk/written.js";
import { UserError } from "../errors.js";
import { mergeFile, resultsFile } from "../folder/files.js";
import { dtypeWords } from "../folder/output.js";
import { withMembers, type NamedFolder } from "../mergers/members.js";
import { withPlanOf } from "../mergers/mergekit-file.js";
import { dtypeBytes, elements, isFloat, toFloat32, writtenType } from "../tensor/dtype.js";
import { headersDiffer, type WrittenTensor } from "../verify/entries.js";
import { notReworked, recipeOfMerge, type MergeRecipe } from "./verify-recipe.js";
import { checkNumbers, failed, passed, skipped, tensorsToBe, type Check } from "../verify/sample.js";

/** Whether files are what they were. @param was in words */
async function checkFiles(what: string, was: string, files: readonly InputHash[]): Promise<Check> {
  for (const { folder, file, sha256: recorded } of files) {
    const path = join(folder, file);
    if (relative(folder, path).startsWith("..")) return failed(what, `${file} lies outside of ${folder}`);
    if (!existsSync(path)) return failed(what, `${path} is not there any more`);
    await refuseIrregular(path);
    if ((await sha256(path)) !== recorded)
      return failed(what, `${path} is not ${was}: its SHA-256 differs from the recorded one`);
  }
  if (files.length === 0) return skipped(what, "no hashes of them were recorded");
  return passed(what, `${files.length} files have the hashes that were recorded`);
}

/** The result's files as they were written. */
async function writtenFiles(folder: string): Promise<InputHash[]> {
  const { outputs = [] } = (await mergeFile.read(folder)) ?? {};
  const { outputs: trained = [] } = (await resultsFile.read(folder)) ?? {};
  return [...outputs, ...trained].map((one) => ({ ...one, folder }));
}

/** The files that were read. */
async function readFiles(folder: string, { base, sources }: MergeRecipe): Promise<InputHash[]> {
  const { inputs: read = [] } = (await mergeFile.read(folder)) ?? {};
  const { inputs: trained = [] } = (await resultsFile.read(folder)) ?? {};
  const folders = new Map([
    ["base", base],
    ...sources.map(({ label, folder: from }) => [label, from] as const),
  ]);
  const files = [...read];
  for (const { role, ...one } of trained) {
    const from = folders.get(role);
    if (from !== undefined) files.push({ ...one, folder: from });
  }
  return files;
}

/** Whether the result has the reference's tensors, in their shapes, of one type that its config says. */
function checkTensors(result: Checkpoint, reference: Checkpoint): Check {
  const what = "tensors";
  for (const name of reference.names) {
    const [own, wanted] = [result.entry(name), entryOf(reference, name)];
    if (!own && isOptional(name)) continue;
    if (!own) return failed(what, `"${name}" is not there, and ${reference.folder} has it`);
    if (own.shape.join() !== wanted.shape.join())
      return failed(
        what,
        `"${name}" is [${own.shape.join(", ")}], in ${reference.folder} [${wanted.shape.join(", ")}]`,
      );
  }
  const more = result.names.find((name) => !reference.entry(name) && !isOptional(name));
  if (more !== undefined) return failed(what, `"${more}" is in no input`);
  const words = result.config["dtype"] ?? result.config["torch_dtype"];
  const types = new Set(
    result.names
      .map((name) => entryOf(result, name).dtype)
      .filter(isFloat)
      .map((dtype) => dtypeWords[writtenType(dtype)]),
  );
  if (typeof words === "string" && types.size === 1 && !types.has(words))
    return failed(what, `config.json says ${words}, the tensors are ${[...types].join(", ")}`);
  return passed(what, `${result.names.length} tensors have the names and shapes of ${reference.folder}`);
}

/** Bytes of a tensor that are looked at at a time. */
const pieceBytes = 1 << 24;

/** Whether all floats are finite, but for what was infinite before. Held: a piece of a tensor. */
async function checkFinite(result: Checkpoint, tensors: readonly WrittenTensor[]): Promise<Check> {
  const what = "numbers";
  const known = new Map(tensors.map((one) => [one.name, one]));
  let count = 0;
  for (const name of result.names) {
    const { dtype, shape } = entryOf(result, name);
    if (!isFloat(dtype)) continue;
    const size = elements(shape) * dtypeBytes[dtype];
    for (let from = 0; from < size; from += pieceBytes) {
      const bytes = await result.readRange(name, from, Math.min(pieceBytes, size - from));
      const values = toFloat32({ dtype, shape: [], bytes });
      count += values.length;
      if (firstNotFinite(values) < 0) continue;
      const first = from / dtypeBytes[dtype];
      const before = await known.get(name)?.before?.([first, first + values.length]);
      const bad = values.findIndex((value, i) => !Number.isFinite(value) && value !== before?.[i]);
      if (bad >= 0) return failed(what, `"${name}" holds ${values[bad]} at entry ${first + bad}`);
    }
  }
  return passed(what, `${count} are finite`);
}

/** Looks at a result as a plan says it. @param all every number, and not a sample */
async function checkPlan(result: Checkpoint, plan: MergePlan, all: boolean): Promise<Check[]> {
  const { tensors, close } = plannedTensors(plan);
  try {
    const wrong = headersDiffer(tensors, result.names, () => result);
    let headers = passed("tensors", `${tensors.length} tensors are what the mergekit file says`);
    if (wrong !== undefined) headers = failed("tensors", wrong);
    const why = notReworked(plan.method);
    return [headers, await checkFinite(result, tensors), await checkNumbers(result, tensors, { all, why })];
  } finally {
    await close();
  }
}

/**
 * Verifies a finished merge. Held: pieces of one tensor.
 * @throws UserError where the folder is no finished merge
 */
export async function verify(
  folder: string,
  { all = false }: { readonly all?: boolean } = {},
): Promise<Check[]> {
  const recipe = await recipeOfMerge(folder);
  if (!recipe)
    throw new UserError(`${folder}: it is not a finished merge (there is no run.json or merge.json in it)`);
  const files = await checkFiles("files", "what was written", await writtenFiles(folder));
  const read = await readFiles(folder, recipe);
  const folders = [...recipe.sources.map((one) => one.folder), recipe.base];
  const gone = folders.filter((path) => path !== undefined && !existsSync(path));
  let inputs = skipped("inputs", `not there any more: ${gone.slice(0, 3).join(", ")}`);
  if (gone.length === 0) inputs = await checkFiles("inputs", "what it was", read);
  if (isAdapter(folder))
    return [
      files,
      inputs,
      skipped("tensors", "it is an adapter: fold it into a model (--write model) to have it looked at"),
    ];
  const result = await openCheckpoint(folder);
  try {
    if (gone.length || !read.every((one) => existsSync(join(one.folder, one.file))))
      return [
        files,
        inputs,
        skipped("tensors", "there is nothing to compare them with"),
        await checkFinite(result, []),
      ];
    if (recipe.file) {
      const { path, places, seed } = recipe.file;
      const checks = await withPlanOf(path, { places, seed }, (plan) => checkPlan(result, plan, all));
      return [files, inputs, ...(checks ?? [skipped("tensors", recipe.why)])];
    }
    const ofBase = [recipe.base].flatMap((path): NamedFolder[] =>
      path === undefined ? [] : [{ label: "base", folder: path }],
    );
    const { tokenizer = "base" } = recipe;
    const opening = { reference: 0, hasBase: recipe.base !== undefined, tokenizer, dequantise: true };
    return await withMembers([...ofBase, ...recipe.sources], opening, async (members) => {
      const [base] = members.slice(0, ofBase.length);
      const models = members.slice(ofBase.length);
      const reference = at(members, 0).checkpoint;
      const tensors = await tensorsToBe({ result, base, inputs: models, recipe });
      return [
        files,
        inputs,
        checkTensors(result, reference),
        await checkFinite(result, tensors),
        await checkNumbers(result, tensors, { all, why: recipe.why }),
      ];
    });
  } finally {
    await result.close();
  }
}
