import type { Tensor, Tensor1D, Tensor2D } from "@tensorflow/tfjs-core";
import { joined, layerNorm, linear, lowRank, plus, rmsNorm, scaled } from "./ops.js";
import type { Shapes, Weights } from "./types.js";

export interface DenseOptions {
  /** Its weight is stored [in, out], as GPT-2's are. */
  readonly transposed?: boolean | undefined;
  /** It has no bias. */
  readonly bare?: boolean | undefined;
}

/** A linear layer by its module, with the adapters beside it. */
function one(w: Weights, x: Tensor2D, module: string, options: DenseOptions): Tensor2D {
  const adapter = w.adapterOf?.(module);
  const l = adapter?.ia3 && (w(`${module}.ia3_l`) as Tensor1D);
  const input = adapter?.ia3 === "in" ? scaled(x, l as Tensor1D) : x;
  const own = linear(input, [layerOf(w, input, module, options)]);
  const y = adapter?.lora ? plus(own, product(w, input, module)) : own;
  return adapter?.ia3 === "out" ? scaled(y, l as Tensor1D) : y;
}

/** What LoRA adds. A merge trains d alone, and its A and B are frozen; fine-tuning trains A and B. */
function product(w: Weights, x: Tensor2D, module: string): Tensor2D {
  const [a, b, d] = [
    w(`${module}.lora_A`) as Tensor2D,
    w(`${module}.lora_B`) as Tensor2D,
    w(`${module}.lora_d`) as Tensor1D,
  ];
  return w.frozen?.(`${module}.lora_A`) === false
    ? linear(scaled(linear(x, [{ weight: a }]), d), [{ weight: b }])
    : lowRank(x, a, b, d);
}

function layerOf(w: Weights, x: Tensor2D, module: string, { transposed, bare }: DenseOptions) {
  const [weight, bias] = [`${module}.weight`, bare ? undefined : `${module}.bias`];
  w.seen?.(weight, x);
  return {
    weight: w(weight) as Tensor2D,
    bias: bias === undefined ? undefined : (w(bias) as Tensor1D),
    transposed,
    frozen: w.frozen?.(weight) && (bias === undefined || w.frozen(bias)),
  };
}

/**
 * x [n, in] → [n, out]: one dense layer, or several side by side on the same input, in one product
 * where nothing stands beside them.
 */
export function dense(
  w: Weights,
  x: Tensor,
  modules: string | readonly string[],
  options: DenseOptions = {},
): Tensor2D {
  const list = typeof modules === "string" ? [modules] : modules;
  const input = x as Tensor2D;
  if (list.every((module) => !w.adapterOf?.(module)) && !(options.transposed && list.length > 1))
    return linear(
      input,
      list.map((module) => layerOf(w, input, module, options)),
    );
  return joined(
    list.map((module) => one(w, input, module, options)),
    1,
  );
}

/** Layer normalisation by its module. */
export const norm = (w: Weights, module: string, x: Tensor, epsilon: number): Tensor2D =>
  layerNorm(x as Tensor2D, w(`${module}.weight`) as Tensor1D, w(`${module}.bias`) as Tensor1D, epsilon);

/** Root-mean-square normalisation by its module. */
export const rms = (w: Weights, module: string, x: Tensor, epsilon: number): Tensor2D =>
  rmsNorm(x as Tensor2D, w(`${module}.weight`) as Tensor1D, epsilon);

/** Shapes of a dense layer's tensors. */
export function denseShapes(
  module: string,
  out: number,
  input: number,
  { transposed, bare }: DenseOptions = {},
): [string, number[]][] {
  const weight: [string, number[]] = [`${module}.weight`, transposed ? [input, out] : [out, input]];
  return bare ? [weight] : [weight, [`${module}.bias`, [out]]];
}

export const normShapes = (module: string, width: number): [string, number[]][] => [
  [`${module}.weight`, [width]],
  [`${module}.bias`, [width]],
];

/** All tensors of some blocks, each once, in order. */
export const parametersOf = (
  blocks: readonly { readonly shapes: Shapes }[],
): Map<string, readonly number[]> => new Map(blocks.flatMap(({ shapes }) => [...shapes]));
