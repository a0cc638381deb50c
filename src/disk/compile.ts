import type { Member } from "../checkpoint/family.js";
import type { Values } from "../methods/types.js";
import { isFloat, type DType, type FloatDType } from "../tensor/dtype.js";
import type { Ref } from "../checkpoint/ref.js";
import type { MergePlan, PlannedTensor } from "./plan.js";

export interface Sources {
  /** Where the merge has none, the first input's tensors are the list. */
  readonly base?: Member | undefined;
  readonly inputs: readonly Member[];
}

export interface CompileOptions {
  readonly method: string;
  readonly values: Values;
  /** Type of every float in the result (default: the base's own). */
  readonly dtype?: FloatDType | undefined;
  /** Canonical names that are left out: heads. */
  readonly without?: readonly string[] | undefined;
  /** A tensor's statistics, one an input, where the method needs them. */
  readonly statistics?:
    | ((name: string) => Pick<PlannedTensor, "statistics" | "statisticSize" | "transposed"> | undefined)
    | undefined;
}

/** Where a tensor of a model lies; undefined where the model has none of that name. */
export function refOf(
  { actual, checkpoint }: Member,
  name: string,
): (Ref & { readonly shape: readonly number[] }) | undefined {
  const stored = actual.get(name);
  const entry = stored === undefined ? undefined : checkpoint.entry(stored);
  return entry && { ...checkpoint.ref(stored!), shape: entry.shape };
}

/** The very bytes of the base, in its own file. */
const isSame = (a: Ref, b: Ref): boolean => a.path === b.path && a.start === b.start && !a.adapted;

/** Why a tensor cannot be merged, or undefined where it can. */
function unlike(
  first: { dtype: DType; shape: readonly number[] },
  others: readonly (readonly [label: string, ref: ReturnType<typeof refOf>])[],
): string | undefined {
  if (!isFloat(first.dtype)) return `${first.dtype} is not merged`;
  for (const [label, ref] of others) {
    if (!ref) return `${label} has none`;
    if (!isFloat(ref.dtype)) return `${label}'s is ${ref.dtype}`;
    if (ref.shape.join() !== first.shape.join()) return `${label}'s is [${ref.shape.join(", ")}]`;
  }
  return undefined;
}

/**
 * Plans a merge of whole models, tensor by tensor, in the order of the base's file and under its names.
 * What is no float of one shape everywhere is taken over from the base (the first model, where there is
 * no base) and named in `kept`; what that model does not have is left out and named in `left`.
 */
export function compileMerge(
  { base, inputs }: Sources,
  { method, values, dtype, without = [], statistics }: CompileOptions,
): { plan: MergePlan; kept: { name: string; why: string }[]; left: string[] } {
  const first = base ?? inputs[0]!;
  const nameOf = new Map([...first.actual].map(([canonical, stored]) => [stored, canonical]));
  const kept: { name: string; why: string }[] = [];
  const tensors = first.checkpoint.names
    .filter((stored) => !without.includes(nameOf.get(stored)!))
    .map((stored): PlannedTensor => {
      const canonical = nameOf.get(stored)!;
      const own = refOf(first, canonical)!;
      const refs = inputs.map((input) => refOf(input, canonical));
      // Adapters leave most of a model as the base has it.
      if (base && refs.length && refs.every((ref) => ref && isSame(ref, own)))
        return {
          name: stored,
          dtype: isFloat(own.dtype) ? (dtype ?? own.dtype) : own.dtype,
          shape: own.shape,
          copy: own,
          inputs: [],
          values,
        };
      const why = unlike(
        own,
        inputs.map((input, i) => [input.label, refs[i]]),
      );
      const target = isFloat(own.dtype) ? (dtype ?? own.dtype) : own.dtype;
      if (why !== undefined) {
        kept.push({ name: stored, why });
        return { name: stored, dtype: target, shape: own.shape, copy: own, inputs: [], values };
      }
      return {
        name: stored,
        dtype: target,
        shape: own.shape,
        base: base && own,
        inputs: refs as Ref[],
        values,
        ...statistics?.(canonical),
      };
    });
  const left = [
    ...new Set(
      inputs.flatMap((input) =>
        [...input.actual.keys()].filter((name) => !first.actual.has(name) && !without.includes(name)),
      ),
    ),
  ];
  return { left, plan: { method, labels: inputs.map(({ label }) => label), tensors }, kept };
}
