/** Linear layers and norms by the names of their modules. */
import type { Tensor2D } from "@tensorflow/tfjs-core";
import { affine, concatenated, layerNorm, lowRank, plus, rmsNorm, scaled, type Dense } from "./ops.js";
import type { Shapes, Weights } from "./types.js";
import { areFrozen, weightMatrix, weightVector } from "./weights.js";

export interface DenseOptions {
  /** Its weight is stored [in, out], as GPT-2's are. */
  readonly transposed?: boolean | undefined;
  /** It has no bias. */
  readonly bare?: boolean | undefined;
}

/** A linear layer's tensors, and its input shown to whoever wants to see it. */
function linearLayer(
  w: Weights,
  x: Tensor2D,
  module: string,
  { transposed, bare = false }: DenseOptions,
): Dense {
  const [weight, bias] = [`${module}.weight`, `${module}.bias`];
  w.onLinearInput?.(weight, x);
  const layer = { weight: weightMatrix(w, weight), transposed };
  if (bare) return { ...layer, frozen: areFrozen(w, weight) };
  return { ...layer, bias: weightVector(w, bias), frozen: areFrozen(w, weight, bias) };
}

/** A linear layer with the adapters beside it. */
function adaptedLinear(w: Weights, x: Tensor2D, module: string, options: DenseOptions): Tensor2D {
  const { lora, ia3 } = w.adapterOf?.(module) ?? {};
  const rescaled = (t: Tensor2D, side: "in" | "out") =>
    side === ia3 ? scaled(t, weightVector(w, `${module}.ia3_l`)) : t;
  const input = rescaled(x, "in");
  const own = affine(input, [linearLayer(w, input, module, options)]);
  return rescaled(lora ? plus(own, loraProduct(w, input, module)) : own, "out");
}

/** What LoRA adds. A merge trains d alone, and its A and B are frozen; fine-tuning trains A and B. */
function loraProduct(w: Weights, x: Tensor2D, module: string): Tensor2D {
  const [a, b] = [weightMatrix(w, `${module}.lora_A`), weightMatrix(w, `${module}.lora_B`)];
  const d = weightVector(w, `${module}.lora_d`);
  if (w.frozen?.(`${module}.lora_A`) ?? true) return lowRank(x, a, b, d);
  return affine(scaled(affine(x, [{ weight: a }]), d), [{ weight: b }]);
}

/**
 * x [n, in] → [n, out]: one dense layer, or several side by side on the same input, in one product
 * where nothing stands beside them.
 */
export function dense(
  w: Weights,
  x: Tensor2D,
  modules: string | readonly string[],
  options: DenseOptions = {},
): Tensor2D {
  const list = [modules].flat();
  const isAdapted = list.some((module) => w.adapterOf?.(module));
  if (!isAdapted && (list.length === 1 || !options.transposed))
    return affine(
      x,
      list.map((module) => linearLayer(w, x, module, options)),
    );
  return concatenated(
    list.map((module) => adaptedLinear(w, x, module, options)),
    1,
  );
}

/** Layer normalisation by its module. */
export const norm = (w: Weights, module: string, x: Tensor2D, epsilon: number): Tensor2D =>
  layerNorm(x, weightVector(w, `${module}.weight`), weightVector(w, `${module}.bias`), epsilon);

/** Root-mean-square normalisation by its module. */
export const rms = (w: Weights, module: string, x: Tensor2D, epsilon: number): Tensor2D =>
  rmsNorm(x, weightVector(w, `${module}.weight`), epsilon);

/** A tensor's name and shape. */
export type NamedShape = [name: string, shape: readonly number[]];

/** Shapes of a dense layer's tensors. */
export function denseShapes(
  module: string,
  out: number,
  input: number,
  { transposed, bare }: DenseOptions = {},
): NamedShape[] {
  const weight: NamedShape = [`${module}.weight`, transposed ? [input, out] : [out, input]];
  return bare ? [weight] : [weight, [`${module}.bias`, [out]]];
}

export const normShapes = (module: string, width: number): NamedShape[] => [
  [`${module}.weight`, [width]],
  [`${module}.bias`, [width]],
];

/** All tensors of some blocks, each once, in order. */
export const shapesOfBlocks = (
  blocks: readonly { readonly shapes: Shapes }[],
): Map<string, readonly number[]> => new Map(blocks.flatMap(({ shapes }) => [...shapes]));
