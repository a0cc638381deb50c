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
import type { MergePlan } from "../disk/plan.js";
import { plannedTensors } from "../disk/written.js";
import { UserError } from "../errors.js";
import { mergeFile, resultsFile } from "../folder/files.js";
import { dtypeWords } from "../folder/output.js";
import { withMembers, type NamedFolder } from "../mergers/members.js";
import { withPlanOf } from "../mergers/mergekit-file.js";
import { dtypeBytes, elements, isFloat, toFloat32, writtenType } from "../tensor/dtype.js";
import { expectedDiffer, headersDiffer, numbersDiffer } from "../verify/entries.js";
import { notReworked, recipeOfMerge, type MergeRecipe } from "./verify-recipe.js";
import { checkSample, entriesOf, failed, passed, skipped, type Check } from "../verify/sample.js";

/** Whether inputs whose hashes were recorded are what they were. */
async function checkInputs(folder: string, { base, sources }: MergeRecipe): Promise<Check> {
  const what = "inputs";
  const missing = [...sources.map((one) => one.folder), base].filter(
    (path) => path !== undefined && !existsSync(path),
  );
  if (missing.length) return skipped(what, `not there any more: ${missing.slice(0, 3).join(", ")}`);
  const recorded = (await resultsFile.read(folder))?.inputs ?? [];
  const read = (await mergeFile.read(folder))?.inputs ?? [];
  const folders = new Map([
    ["base", base],
    ...sources.map(({ label, folder: from }) => [label, from] as const),
  ]);
  const files = recorded.flatMap(({ role, file, sha256: hash }) => {
    const from = folders.get(role);
    return [from].filter((one) => one !== undefined).map((one) => ({ folder: one, file, sha256: hash }));
  });
  let count = 0;
  for (const { folder: from, file, sha256: expected } of [...files, ...read]) {
    const path = join(from, file);
    if (!existsSync(path)) return failed(what, `${path} is not there any more`);
    await refuseIrregular(path);
    count++;
    if ((await sha256(path)) !== expected)
      return failed(what, `${path} is not what it was: its SHA-256 differs from the recorded one`);
  }
  if (count === 0) return skipped(what, "no hashes of them were recorded");
  return passed(what, `${count} files have the hashes that were recorded`);
}

/** Whether the result's files are what was written. */
async function checkFiles(folder: string): Promise<Check> {
  const what = "files";
  const recorded = [
    ...((await mergeFile.read(folder))?.outputs ?? []),
    ...((await resultsFile.read(folder))?.outputs ?? []),
  ];
  for (const { file, sha256: expected } of recorded) {
    const path = join(folder, file);
    if (relative(folder, path).startsWith("..")) return failed(what, `${file} lies outside the folder`);
    if (!existsSync(path)) return failed(what, `${file} is not there any more`);
    await refuseIrregular(path);
    if ((await sha256(path)) !== expected)
      return failed(what, `${file} is not what was written: its SHA-256 differs from the recorded one`);
  }
  if (recorded.length === 0) return skipped(what, "no hashes of them were recorded");
  return passed(what, `${recorded.length} files are what was written`);
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

export type { Check };

/** Bytes of a tensor that are looked at at a time. */
const pieceBytes = 1 << 24;

/** What an entry was in a model; undefined where nobody knows. */
type EntryBefore = (name: string, entry: number) => Promise<number | undefined>;

/** Whether all floats are finite, but for what was infinite before. Held: a piece of a tensor. */
async function checkFinite(result: Checkpoint, before: EntryBefore): Promise<Check> {
  const what = "numbers";
  let count = 0;
  for (const name of result.names) {
    const { dtype, shape } = entryOf(result, name);
    if (!isFloat(dtype)) continue;
    const size = elements(shape) * dtypeBytes[dtype];
    for (let from = 0; from < size; from += pieceBytes) {
      const bytes = await result.readRange(name, from, Math.min(pieceBytes, size - from));
      const values = toFloat32({ dtype, shape: [], bytes });
      const bad = firstNotFinite(values);
      count += values.length;
      if (bad < 0) continue;
      const entry = from / dtypeBytes[dtype] + bad;
      if ((await before(name, entry)) === values[bad]) continue;
      return failed(what, `"${name}" holds ${values[bad]} at entry ${entry}`);
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
    const termsOf = new Map(tensors.map((one) => [one.name, one.terms ?? []]));
    const numbers = await checkFinite(result, async (name, entry) => {
      const [first] = termsOf.get(name) ?? [];
      return (await first?.read([entry, entry + 1]))?.[0];
    });
    const what = "worked out again";
    const known = tensors.filter(({ terms, expected, name }) => (terms ?? expected) && result.entry(name));
    if (known.length === 0) return [headers, numbers, skipped(what, notReworked(plan.method))];
    for (const one of known) {
      const differs = (await numbersDiffer(result, one, all)) ?? (await expectedDiffer(result, one, all));
      if (differs !== undefined) return [headers, numbers, failed(what, differs)];
    }
    return [headers, numbers, passed(what, `entries of ${known.length} of ${tensors.length} tensors`)];
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
  const files = await checkFiles(folder);
  if (isAdapter(folder))
    return [
      files,
      await checkInputs(folder, recipe),
      skipped("tensors", "it is an adapter: fold it into a model (--write model) to have it looked at"),
    ];
  const inputs = await checkInputs(folder, recipe);
  const result = await openCheckpoint(folder);
  try {
    if (inputs.ok !== true && inputs.detail.includes("not there any more"))
      return [
        files,
        inputs,
        skipped("tensors", "there is nothing to compare them with"),
        await checkFinite(result, async () => undefined),
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
      const before: EntryBefore = async (name, entry) =>
        (await entriesOf(reference, name, [entry, entry + 1]))[0];
      const checks = [files, inputs, checkTensors(result, reference), await checkFinite(result, before)];
      if (!recipe.weightsOf && !recipe.rework) return [...checks, skipped("worked out again", recipe.why)];
      return [...checks, await checkSample({ result, base, inputs: models, recipe, all })];
    });
  } finally {
    await result.close();
  }
}
