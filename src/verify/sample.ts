/** What a result's tensors must be by its models, and whether its numbers are that. */
import { at, lookUp } from "../at.js";
import type { Member } from "../checkpoint/family.js";
import { entryOf, type Checkpoint } from "../checkpoint/folder.js";
import { isFloat, toFloat32 } from "../tensor/dtype.js";
import { entriesOf, numbersDiffer, sampled, type TensorFile, type WrittenTensor } from "./entries.js";
import type { MergedModels, Rework } from "./methods.js";
import type { SumWeights } from "./sums.js";

/** One thing that was looked at. */
export interface Check {
  readonly what: string;
  /** Undefined where it could not be looked at, and why stands in `detail`. */
  readonly ok: boolean | undefined;
  readonly detail: string;
}

export const passed = (what: string, detail: string): Check => ({ what, ok: true, detail });
export const failed = (what: string, detail: string): Check => ({ what, ok: false, detail });
export const skipped = (what: string, detail: string): Check => ({ what, ok: undefined, detail });

/** How a result is worked out from its models. */
export interface Recipe {
  /** How each tensor is made, by its name in the base's file; undefined where no sums say it. */
  readonly weightsOf: ((stored: string) => SumWeights | undefined) | undefined;
  /** How it is worked out from whole tensors, where sums do not say it. */
  readonly rework?: ((models: Omit<MergedModels, "labels">) => ReturnType<Rework>) | undefined;
}

/** A result and what it was made from. */
export interface Merged {
  readonly result: Checkpoint;
  readonly base: Member | undefined;
  readonly inputs: readonly Member[];
  readonly recipe: Recipe;
}

type Header = Pick<WrittenTensor, "name" | "dtype" | "shape">;

/** Reads a tensor's entries in a model; undefined where it has none of this shape. */
function readerOf({ actual, checkpoint }: Member, { name, shape }: Header): WrittenTensor["before"] {
  const stored = actual.get(name);
  if (stored === undefined || entryOf(checkpoint, stored).shape.join() !== shape.join()) return undefined;
  return (range) => entriesOf(checkpoint, stored, range);
}

/** What a tensor is the sum of; undefined where no sum says it, or a model has it not. */
function sumTerms({ base, inputs, recipe }: Merged, header: Header): WrittenTensor["terms"] {
  const weights = recipe.weightsOf?.(header.name);
  if (!weights) return undefined;
  const parts = inputs.map((member, i) => ({ member, factor: at(weights.inputs, i) }));
  if (base) parts.unshift({ member: base, factor: weights.base });
  const terms: { factor: number; read: NonNullable<WrittenTensor["before"]> }[] = [];
  for (const { member, factor } of parts) {
    const read = readerOf(member, header);
    if (!read) return undefined;
    terms.push({ factor, read });
  }
  return terms;
}

/** Whether a model's tensor is the base's own, as it is of an adapter that does not touch it. */
function isBases(one: Member, base: Member, name: string): boolean {
  const [own, from] = [one, base].map(({ actual, checkpoint }) => checkpoint.ref(lookUp(actual, name)));
  return own?.path === from?.path && own?.start === from?.start && !own?.adapted && !own?.moved;
}

/** How each tensor is worked out that takes all of it, by name: what is not merged, is not in it. */
async function wholeTensors(
  { base, inputs }: Merged,
  headers: readonly Header[],
  rework: NonNullable<Recipe["rework"]>,
): Promise<Map<string, WrittenTensor["expected"]>> {
  const isMerged = (header: Header): boolean =>
    isFloat(header.dtype) &&
    [base, ...inputs].every((one) => !one || readerOf(one, header)) &&
    !(base && inputs.every((one) => isBases(one, base, header.name)));
  const names = headers.filter(isMerged).map(({ name }) => name);
  const valuesOf = async ({ actual, checkpoint }: Member, name: string) =>
    toFloat32(await checkpoint.read(lookUp(actual, name)));
  const read = async (name: string) => ({
    name,
    base: base && (await valuesOf(base, name)),
    inputs: await Promise.all(inputs.map((one) => valuesOf(one, name))),
  });
  const reworked = await rework({ names, read });
  return new Map(names.map((name) => [name, async () => reworked(await read(name))]));
}

/** What the tensors of a result must be. What a method that takes whole tensors does not merge is the first model's. */
export async function tensorsToBe(merged: Merged): Promise<WrittenTensor[]> {
  const { result, base, inputs, recipe } = merged;
  const first = base ?? at(inputs, 0);
  const headers = result.names.map((name): Header => ({ name, ...entryOf(result, name) }));
  const expected = recipe.rework && (await wholeTensors(merged, headers, recipe.rework));
  return headers.map((header): WrittenTensor => {
    const before = readerOf(first, header);
    const whole = expected?.get(header.name);
    if (whole) return { ...header, before, expected: whole };
    let terms = sumTerms(merged, header);
    if (expected && before) terms = [{ factor: 1, read: before }];
    return { ...header, before, ...(terms && { terms }) };
  });
}

/**
 * Works numbers of a result out again.
 * @param all every number, and not a sample
 * @param why none is looked at, where nothing says what they must be
 */
export async function checkNumbers(
  result: TensorFile,
  tensors: readonly WrittenTensor[],
  { all, why }: { readonly all: boolean; readonly why: string },
): Promise<Check> {
  const what = "worked out again";
  const known = tensors.filter(
    ({ name, dtype, terms, expected }) => (terms ?? expected) && isFloat(dtype) && result.entry(name),
  );
  if (known.length === 0) return skipped(what, why);
  for (const one of known) {
    const wrong = await numbersDiffer(result, one, all);
    if (wrong !== undefined) return failed(what, wrong);
  }
  let howMany = `up to ${sampled} entries`;
  if (all) howMany = "every entry";
  return passed(what, `${howMany} of ${known.length} of ${tensors.length} tensors`);
}
