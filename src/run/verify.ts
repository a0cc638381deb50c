/**
 * Looks at a finished merge anew: are the inputs what they were, is every tensor there in the shape and type that it
 * must have, are its numbers finite, and is a sample of them what the inputs and the record say, worked out in float64
 * by arithmetic of its own.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import seedrandom from "seedrandom";
import { at, f32, lookUp } from "../at.js";
import type { Member } from "../checkpoint/family.js";
import { sha256 } from "../checkpoint/files.js";
import { entryOf, isAdapter, openCheckpoint, type Checkpoint } from "../checkpoint/folder.js";
import { isOptional } from "../checkpoint/names.js";
import { firstNotFinite } from "../checkpoint/numbers.js";
import { UserError } from "../errors.js";
import { resultsFile } from "../folder/files.js";
import { dtypeWords } from "../folder/output.js";
import { withMembers, type NamedFolder } from "../mergers/members.js";
import { dtypeBytes, elements, isFloat, toFloat32, writtenType, type DType } from "../tensor/dtype.js";
import { recipeOfMerge, type MergeRecipe } from "./verify-recipe.js";

/** Entries from one to before another. */
type Range = readonly [from: number, to: number];

/** One thing that was looked at. */
export interface Check {
  readonly what: string;
  /** Undefined where it could not be looked at, and why stands in `detail`. */
  readonly ok: boolean | undefined;
  readonly detail: string;
}

const passed = (what: string, detail: string): Check => ({ what, ok: true, detail });
const failed = (what: string, detail: string): Check => ({ what, ok: false, detail });
const skipped = (what: string, detail: string): Check => ({ what, ok: undefined, detail });

/** Whether inputs whose hashes were recorded are what they were. */
async function checkInputs(folder: string, { base, sources }: MergeRecipe): Promise<Check> {
  const what = "inputs";
  const missing = [...sources.map((one) => one.folder), base].filter(
    (path) => path !== undefined && !existsSync(path),
  );
  if (missing.length) return skipped(what, `not there any more: ${missing.slice(0, 3).join(", ")}`);
  const recorded = (await resultsFile.read(folder))?.inputs ?? [];
  const folders = new Map([
    ["base", base],
    ...sources.map(({ label, folder: from }) => [label, from] as const),
  ]);
  let count = 0;
  for (const { role, file, sha256: expected } of recorded) {
    const from = folders.get(role);
    if (from === undefined || !existsSync(join(from, file))) continue;
    count++;
    if ((await sha256(join(from, file))) !== expected)
      return failed(
        what,
        `${join(from, file)} is not what it was: its SHA-256 differs from the recorded one`,
      );
  }
  if (count === 0) return skipped(what, "no hashes of them were recorded");
  return passed(what, `${count} files have the hashes that were recorded`);
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

/** Whether all floats are finite, but for what is infinite in the reference too. Held: a piece of a tensor. */
async function checkFinite(result: Checkpoint, reference: Checkpoint): Promise<Check> {
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
      if ((await entriesOf(reference, name, [entry, entry + 1]))[0] === values[bad]) continue;
      return failed(what, `"${name}" holds ${values[bad]} at entry ${entry}`);
    }
  }
  return passed(what, `${count} are finite`);
}

/** Entries `from` to before `to` of a tensor. */
async function entriesOf(checkpoint: Checkpoint, name: string, [from, to]: Range): Promise<Float32Array> {
  const { dtype } = entryOf(checkpoint, name);
  const size = dtypeBytes[dtype];
  return toFloat32({
    dtype,
    shape: [],
    bytes: await checkpoint.readRange(name, from * size, (to - from) * size),
  });
}

/** Half a step of each type, relative to a number, and a little. */
const roundings: ReadonlyMap<DType, number> = new Map(
  (
    [
      ["F32", -24],
      ["F16", -11],
      ["BF16", -8],
      ["F64", -24],
    ] as const
  ).map(([dtype, power]) => [dtype, 1.01 * 2 ** power]),
);
/** Half of the smallest step of float16, and what is as good as nothing elsewhere. */
const smallest = 2 ** -25;

/** Entries of every tensor that are worked out again, where not all are. */
const sampled = 16;
/** Entries that are held of each model, where all are. */
const pieceEntries = 1 << 20;

interface Sampled {
  readonly result: Checkpoint;
  readonly base: Member | undefined;
  readonly inputs: readonly Member[];
  readonly weightsOf: NonNullable<MergeRecipe["weightsOf"]>;
  readonly all: boolean;
}

/** Which entries of a tensor are looked at. */
function rangesToCheck(name: string, size: number, all: boolean): Range[] {
  if (all)
    return Array.from({ length: Math.ceil(size / pieceEntries) }, (_, i) => [
      i * pieceEntries,
      Math.min(size, (i + 1) * pieceEntries),
    ]);
  const draw = seedrandom(name);
  return Array.from({ length: Math.min(sampled, size) }, () => {
    const entry = Math.floor(draw() * size);
    return [entry, entry + 1];
  });
}

/** A model's part in a tensor. */
interface WeightedTerm {
  readonly factor: number;
  readonly values: Float32Array;
}

/** The first of some entries that is not what its terms add up to. */
function firstWrong(
  own: Float32Array,
  terms: readonly WeightedTerm[],
  dtype: DType,
): { at: number; right: number } | undefined {
  for (const [i, found] of own.entries()) {
    let [right, magnitude] = [0, 0];
    for (const { factor, values } of terms) {
      const value = f32(values, i);
      right += factor * value;
      magnitude += (1 + Math.abs(factor)) * Math.abs(value);
    }
    // Float32 on the way: each term may be off by its rounding; then the type that is written.
    const allowed = 8 * 2 ** -24 * magnitude + lookUp(roundings, dtype) * Math.abs(right) + smallest;
    if (!(Math.abs(found - right) <= allowed)) return { at: i, right };
  }
  return undefined;
}

/** Works out entries of one tensor. @returns what differs; undefined where nothing does */
async function differsIn(
  { result, base, inputs, weightsOf, all }: Sampled,
  name: string,
): Promise<string | undefined> {
  const { dtype, shape } = entryOf(result, name);
  const weights = weightsOf(name);
  if (!weights || !isFloat(dtype)) return undefined;
  const parts = inputs.map((member, i) => ({ member, factor: at(weights.inputs, i) }));
  if (base) parts.unshift({ member: base, factor: weights.base });
  for (const range of rangesToCheck(name, elements(shape), all)) {
    const terms: WeightedTerm[] = [];
    for (const { member, factor } of parts) {
      const stored = member.actual.get(name);
      const isThere =
        stored !== undefined && entryOf(member.checkpoint, stored).shape.join() === shape.join();
      if (!isThere) return undefined;
      terms.push({ factor, values: await entriesOf(member.checkpoint, stored, range) });
    }
    const own = await entriesOf(result, name, range);
    const wrong = firstWrong(own, terms, dtype);
    if (wrong)
      return `"${name}" holds ${own[wrong.at]} at entry ${range[0] + wrong.at}, and ${wrong.right} is right`;
  }
  return undefined;
}

async function checkSample(sample: Sampled): Promise<Check> {
  const what = "worked out again";
  for (const name of sample.result.names) {
    const wrong = await differsIn(sample, name);
    if (wrong !== undefined) return failed(what, wrong);
  }
  let howMany = `up to ${sampled} entries`;
  if (sample.all) howMany = "every entry";
  return passed(what, `${howMany} of each of ${sample.result.names.length} tensors`);
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
  if (isAdapter(folder))
    return [
      await checkInputs(folder, recipe),
      skipped("tensors", "it is an adapter: fold it into a model (--write model) to have it looked at"),
    ];
  const inputs = await checkInputs(folder, recipe);
  const result = await openCheckpoint(folder);
  try {
    if (inputs.ok === undefined && inputs.detail.startsWith("not there"))
      return [
        inputs,
        skipped("tensors", "there is nothing to compare them with"),
        await checkFinite(result, result),
      ];
    const ofBase = [recipe.base].flatMap((path): NamedFolder[] =>
      path === undefined ? [] : [{ label: "base", folder: path }],
    );
    const { tokenizer = "base" } = recipe;
    const opening = { reference: 0, hasBase: recipe.base !== undefined, tokenizer, dequantise: true };
    return await withMembers([...ofBase, ...recipe.sources], opening, async (members) => {
      const [base] = members.slice(0, ofBase.length);
      const models = members.slice(ofBase.length);
      const reference = at(members, 0).checkpoint;
      const checks = [inputs, checkTensors(result, reference), await checkFinite(result, reference)];
      const { weightsOf, why } = recipe;
      if (!weightsOf) return [...checks, skipped("worked out again", why)];
      return [...checks, await checkSample({ result, base, inputs: models, weightsOf, all })];
    });
  } finally {
    await result.close();
  }
}
