import { at } from "../at.js";
import type { Member } from "../checkpoint/family.js";
import { findMethod } from "../methods/index.js";
import type { ParameterValues } from "../methods/types.js";
import { isFloat, writtenType, type DType, type FloatDType } from "../tensor/dtype.js";
import type { Ref } from "../checkpoint/safetensors.js";
import type { Unmerged } from "./partners.js";
import type { MergePlan, PlannedTensor } from "./plan.js";

export interface Sources {
  /** Where the merge has none, the first input's tensors are the list. */
  readonly base?: Member | undefined;
  readonly inputs: readonly Member[];
}

export interface CompileOptions {
  readonly method: string;
  readonly values: ParameterValues;
  /** Type of every float in the result (default: the base's own). */
  readonly dtype?: FloatDType | undefined;
  /** Canonical names that are left out: heads. */
  readonly without?: readonly string[] | undefined;
  /** A tensor's statistics, one an input, where the method needs them. */
  readonly statistics?:
    | ((name: string) => Pick<PlannedTensor, "statistics" | "statisticSize" | "transposed"> | undefined)
    | undefined;
}

/** Where a tensor of a model lies, and what it is like. */
export type ShapedRef = Ref & { readonly shape: readonly number[] };

/** Where a tensor of a model lies; undefined where the model has none of that name. */
export function refOf({ actual, checkpoint }: Member, name: string): ShapedRef | undefined {
  const stored = actual.get(name);
  if (stored === undefined) return undefined;
  const entry = checkpoint.entry(stored);
  return entry && { ...checkpoint.ref(stored), shape: entry.shape };
}

/** The type of a tensor of the result: the one that is wanted for floats, else its own. */
export function resultType(dtype: DType, wanted: FloatDType | undefined): DType {
  if (!isFloat(dtype)) return dtype;
  return wanted ?? writtenType(dtype);
}

/** The very bytes of the base, in its own file. */
const isSame = (a: Ref, b: Ref): boolean =>
  a.path === b.path && a.start === b.start && !a.adapted && !a.moved && !b.moved;

/** Why a model's tensor cannot be merged with the first's, or undefined where it can. */
export function whyUnlike(first: ShapedRef, label: string, ref: ShapedRef | undefined): string | undefined {
  if (!ref) return `${label} has none`;
  if (!isFloat(ref.dtype)) return `${label}'s is ${ref.dtype}`;
  if (ref.shape.join() === first.shape.join()) return undefined;
  const isShell = ref.shape.join() === "0" && first.shape.join() !== "0";
  if (isShell) return `${label}'s is empty, [0], as DeepSpeed's ZeRO-3 saves weights that were not gathered`;
  return `${label}'s is [${ref.shape.join(", ")}], not [${first.shape.join(", ")}]`;
}

/** An input's tensor. */
interface InputTensor {
  readonly label: string;
  readonly ref: ShapedRef | undefined;
}

/** Where a tensor lies in all inputs, or why it cannot be merged. */
function mergeable(
  first: ShapedRef,
  found: readonly InputTensor[],
): { readonly refs: readonly ShapedRef[] } | { readonly why: string } {
  if (!isFloat(first.dtype)) return { why: `${first.dtype} is not merged` };
  const refs: ShapedRef[] = [];
  for (const { label, ref } of found) {
    const why = whyUnlike(first, label, ref);
    if (!ref || why !== undefined) return { why: why ?? "" };
    refs.push(ref);
  }
  return { refs };
}

/**
 * Plans a merge of whole models, tensor by tensor, in the order of the base's file and under its names.
 * What is no float of one shape everywhere is taken over from the base (the first model, where there is
 * no base) and named in `kept`; what that model does not have is left out and named in `left`.
 */
export function compileMerge(
  { base, inputs }: Sources,
  { method, values, dtype, without = [], statistics }: CompileOptions,
): { plan: MergePlan; kept: Unmerged[]; left: string[] } {
  const first = base ?? at(inputs, 0);
  const keepsEqual = !findMethod(method).changesEqual?.(values);
  const kept: Unmerged[] = [];
  const tensors = [...first.actual]
    .filter(([canonical]) => !without.includes(canonical))
    .map(([canonical, name]): PlannedTensor => {
      const own = refOf(first, canonical);
      if (!own) throw new Error(`${first.label} has lost its tensor "${name}"`);
      const described = { name, dtype: resultType(own.dtype, dtype), shape: own.shape, values };
      const copied: PlannedTensor = { ...described, copy: own, inputs: [] };
      const found = inputs.map((input): InputTensor => ({
        label: input.label,
        ref: refOf(input, canonical),
      }));
      // Adapters leave most of a model as the base has it.
      if (base && keepsEqual && found.length && found.every(({ ref }) => ref && isSame(ref, own)))
        return copied;
      const all = mergeable(own, found);
      if ("refs" in all)
        return { ...described, base: base && own, inputs: all.refs, ...statistics?.(canonical) };
      kept.push({ name, canonical, why: all.why, isOther: !isFloat(own.dtype) });
      return copied;
    });
  const strays = inputs.flatMap(({ actual }) => [...actual.keys()].filter((name) => !first.actual.has(name)));
  const left = [...new Set(strays)].filter((name) => !without.includes(name));
  return { left, plan: { method, labels: inputs.map(({ label }) => label), tensors }, kept };
}
