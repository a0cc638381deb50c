/** A sample of a result's numbers, worked out again from the inputs. */
import { at, lookUp } from "../at.js";
import type { Member } from "../checkpoint/family.js";
import { entryOf, type Checkpoint } from "../checkpoint/folder.js";
import { elements, isFloat, toFloat32 } from "../tensor/dtype.js";
import {
  entriesIn,
  expectedDiffer,
  firstWrong,
  rangesToCheck,
  sampled,
  type Range,
  type WeightedTerm,
} from "./entries.js";
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

/** Entries of a tensor. */
export const entriesOf = (checkpoint: Checkpoint, name: string, range: Range): Promise<Float32Array> =>
  entriesIn(checkpoint, { name, dtype: entryOf(checkpoint, name).dtype }, range);

/** How a result is worked out from its models. */
export interface Recipe {
  /** How each tensor is made, by its name in the base's file; undefined where no sums say it. */
  readonly weightsOf: ((stored: string) => SumWeights | undefined) | undefined;
  /** How it is worked out from whole tensors, where sums do not say it. */
  readonly rework?: ((models: Omit<MergedModels, "labels">) => ReturnType<Rework>) | undefined;
}

export interface Sampled {
  readonly result: Checkpoint;
  readonly base: Member | undefined;
  readonly inputs: readonly Member[];
  readonly recipe: Recipe;
  readonly all: boolean;
}

/** Works out entries of one tensor. @returns what differs; undefined where nothing does */
async function differsInSum(
  { result, base, inputs, recipe, all }: Sampled,
  name: string,
): Promise<string | undefined> {
  const { dtype, shape } = entryOf(result, name);
  const weights = recipe.weightsOf?.(name);
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

/** Whether a model's tensor is the base's own, as it is of an adapter that does not touch it. */
function isBases(one: Member, base: Member, name: string): boolean {
  const [own, from] = [one, base].map(({ actual, checkpoint }) => checkpoint.ref(lookUp(actual, name)));
  return own?.path === from?.path && own?.start === from?.start && !own?.adapted && !own?.moved;
}

/** How a tensor is looked at that is worked out from all of it. Held: one tensor of every model. */
async function wholeTensors({ result, base, inputs, all }: Sampled, rework: NonNullable<Recipe["rework"]>) {
  const models = [...[base].filter((one) => one !== undefined), ...inputs];
  const entryIn = ({ actual, checkpoint }: Member, name: string) => checkpoint.entry(actual.get(name) ?? "");
  const isMerged = (name: string): boolean => {
    const { dtype, shape } = entryOf(result, name);
    if (base && inputs.every((one) => isBases(one, base, name))) return false;
    return isFloat(dtype) && models.every((one) => entryIn(one, name)?.shape.join() === shape.join());
  };
  const names = result.names.filter(isMerged);
  const valuesOf = async ({ actual, checkpoint }: Member, name: string) =>
    toFloat32(await checkpoint.read(lookUp(actual, name)));
  const read = async (name: string) => ({
    name,
    base: base && (await valuesOf(base, name)),
    inputs: await Promise.all(inputs.map((one) => valuesOf(one, name))),
  });
  const reworked = await rework({ names, read });
  return async (name: string): Promise<string | undefined> => {
    if (!names.includes(name)) return undefined;
    const { dtype, shape } = entryOf(result, name);
    return expectedDiffer(
      result,
      { name, dtype, shape, expected: async () => reworked(await read(name)) },
      all,
    );
  };
}

export async function checkSample(sample: Sampled): Promise<Check> {
  const what = "worked out again";
  const { rework } = sample.recipe;
  let differs = (name: string) => differsInSum(sample, name);
  if (rework) differs = await wholeTensors(sample, rework);
  for (const name of sample.result.names) {
    const wrong = await differs(name);
    if (wrong !== undefined) return failed(what, wrong);
  }
  let howMany = `up to ${sampled} entries`;
  if (sample.all) howMany = "every entry";
  return passed(what, `${howMany} of each of ${sample.result.names.length} tensors`);
}
