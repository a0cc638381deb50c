/**
 * The pieces transformers are made of, each one custom-gradient op: its intermediate results are freed when
 * its forward returns, and only what its backward needs is kept. Activations are 2-D, [tokens, width].
 */
import {
  add,
  clone,
  concat,
  customGrad,
  dispose,
  gather,
  getBackend,
  matMul,
  mul,
  oneHot,
  ones,
  pad,
  reshape,
  rsqrt,
  slice,
  square,
  sub,
  sum,
  tidy,
  unsortedSegmentSum,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { at } from "../at.js";

/** A list of tensors that TypeScript infers as a tuple where it is written as one. */
type Tensors = readonly Tensor[] | readonly [];

/** What a forward returns: its value, and what its backward gets. */
interface Forward<Out extends Tensor, Saved extends Tensors> {
  readonly value: Out;
  readonly saved: Saved;
}

/** One gradient an input. */
type Gradients<Inputs extends Tensors> = { readonly [K in keyof Inputs]: Tensor };

/**
 * customGrad with honest types: `forward` gets the inputs, `backward` the gradient of the value and what was saved.
 * A backward may use saved tensors only: whatever else the forward made or was given is gone by then. When it
 * returns, its intermediates, what was saved and `dy` are freed, so that memory falls as the gradient runs back
 * (tfjs would hold all of it to the end); nobody else may hold that `dy`.
 */
export function op<const Inputs extends Tensors, const Saved extends Tensors, Out extends Tensor>(
  inputs: Inputs,
  forward: (inputs: Inputs) => Forward<Out, Saved>,
  backward: (dy: Out, saved: Saved) => Gradients<Inputs>,
): Out {
  // tfjs calls back with lists of tensors. They are the ones given to it, handles of their own at most, in the same
  // order: so they have the types that they had then.
  const wrapped = customGrad((...args: unknown[]) => {
    const save = args.pop() as (tensors: Tensor[]) => void;
    const { value, saved } = forward(args as unknown as Inputs);
    save([...saved]);
    return {
      value,
      gradFunc(dy: Tensor | Tensor[], kept: Tensor[]) {
        // A gradient that is dy itself, or was saved, gets a handle of its own.
        const gradients = tidy(() =>
          backward(dy as Out, kept as unknown as Saved).map((gradient) =>
            gradient === dy || kept.includes(gradient) ? clone(gradient) : gradient,
          ),
        );
        dispose([dy, ...kept].flat());
        return gradients;
      },
    };
  });
  return wrapped(...inputs);
}

/** Sum over the rows of x [n, width] → [width], as a product: engines reduce over the first axis slowly. */
export const columnSums = (x: Tensor): Tensor => reshape(matMul(ones([1, x.shape[0]]), x), [-1]);

/** Where things of some sizes lie, one after the other. */
export interface Span {
  readonly start: number;
  readonly size: number;
}

/** @param sizes of things that lie one after the other */
export function spansOf(sizes: readonly number[]): Span[] {
  let end = 0;
  return sizes.map((size) => ({ start: (end += size) - size, size }));
}

/** Tensors one after the other along an axis; one alone is itself. No op of its own: for forwards and backwards. */
export function sideBySide<T extends Tensor>(tensors: readonly T[], axis: 0 | 1 = 0): T {
  const [first, ...others] = tensors;
  return first && others.length === 0 ? first : concat([...tensors], axis);
}

/** Rows are crowded where so many times more fall into them. */
const crowd = 16;

/**
 * Sums of x [n, width] by row number → [count, width]. Where many fall into few, WebGPU's additions wait for each other
 * (2,048 rows into one: 0.3 s on an H200): there it is a product.
 */
function summedInto(x: Tensor2D, ids: Tensor1D, count: number): Tensor2D {
  const isCrowded = count * crowd <= x.shape[0];
  if (getBackend() !== "webgpu" || !isCrowded) return unsortedSegmentSum(x, ids, count);
  const [n] = x.shape;
  if (count === 1) return reshape(columnSums(x), [1, -1]);
  return matMul(reshape(oneHot(ids, count, 1, 0, "float32"), [n, count]), x, true);
}

/** Rows of a table: [n, width] gathered at ids [m] → [m, width]. An embedding, or the choice of some tokens. */
export function rows(table: Tensor2D, ids: Tensor1D): Tensor2D {
  const [count] = table.shape;
  return op(
    [table],
    ([source]) => ({ value: gather(source, ids), saved: [ids] }),
    (dy, [savedIds]) => [summedInto(dy, savedIds, count)],
  );
}

/** a + b of one shape: a residual connection. */
export const plus = (a: Tensor2D, b: Tensor2D): Tensor2D =>
  op(
    [a, b],
    ([x, y]) => ({ value: add(x, y), saved: [] }),
    (dy) => [dy, dy],
  );

/** Σ⟨x_i, direction_i⟩: its gradient at x_i is direction_i, which carries a gradient on from where it was cut. */
export const along = (xs: readonly Tensor[], directions: readonly Tensor[]): Tensor =>
  op(
    xs,
    (inputs) => ({
      value: inputs.map((x, i) => sum(mul(x, at(directions, i)))).reduce((a, b) => add(a, b)),
      saved: directions.map((direction) => clone(direction)),
    }),
    (dy, saved) => saved.map((direction) => mul(direction, dy)),
  );

export interface Dense {
  /** [out, in], as PyTorch's Linear stores it. */
  readonly weight: Tensor2D;
  /** [out] */
  readonly bias?: Tensor1D | undefined;
  /** Stored [in, out]; of one layer alone. */
  readonly transposed?: boolean | undefined;
  /** Nobody asks for its gradient, so none is formed. */
  readonly frozen?: boolean | undefined;
}

/**
 * x Wᵀ + b for one dense layer, or for several side by side in one product: x [n, in] → [n, Σ out]. All have a bias,
 * or none.
 */
export function affine(x: Tensor2D, layers: readonly Dense[]): Tensor2D {
  const transposed = layers.some((layer) => layer.transposed);
  const biases = layers.flatMap(({ bias }) => bias ?? []);
  const forward = (input: Tensor2D) => {
    const w = sideBySide(layers.map(({ weight }) => weight));
    const product: Tensor2D = matMul(input, w, false, !transposed);
    return { w, value: biases.length === 0 ? product : add<Tensor2D>(product, sideBySide(biases)) };
  };
  const inputGradient = (dy: Tensor2D, w: Tensor2D): Tensor => matMul(dy, w, false, transposed);
  if (layers.every(({ frozen }) => frozen))
    return op(
      [x],
      ([input]) => {
        const { value, w } = forward(input);
        return { value, saved: [w] };
      },
      (dy, [w]) => [inputGradient(dy, w)],
    );
  const outs = spansOf(layers.map(({ weight }) => weight.shape[transposed ? 1 : 0]));
  return op(
    [x, ...layers.flatMap(({ weight, bias }): Tensor[] => (bias ? [weight, bias] : [weight]))],
    ([input]) => {
      const { value, w } = forward(input);
      return { value, saved: [w, input] };
    },
    (dy, [w, input]) => {
      const dx = inputGradient(dy, w);
      const dw = transposed ? matMul(input, dy, true, false) : matMul(dy, input, true, false);
      const db = biases.length === 0 ? [] : [columnSums(dy)];
      if (outs.length === 1) return [dx, dw, ...db];
      const each = outs.flatMap(({ start, size }) => [
        slice(dw, [start, 0], [size, -1]),
        ...db.map((all) => slice(all, [start], [size])),
      ]);
      return [dx, ...each];
    },
  );
}

/** ((x Aᵀ) ⊙ d) Bᵀ, with a gradient for x and d: A [rank, in] and B [out, rank] are frozen (LoRA, Hu et al. 2021). */
export const lowRank = (x: Tensor2D, a: Tensor2D, b: Tensor2D, d: Tensor1D): Tensor2D =>
  op(
    [x, d],
    ([input, gain]) => {
      const z: Tensor2D = matMul(input, a, false, true);
      return { value: matMul(mul<Tensor2D>(z, gain), b, false, true), saved: [a, b, gain, z] };
    },
    (dy, [savedA, savedB, gain, z]) => {
      const inner = matMul(dy, savedB);
      return [matMul(mul(inner, gain), savedA), columnSums(mul(inner, z))];
    },
  );

/** x ⊙ l for every row: x [n, width], l [width]. */
export const scaled = (x: Tensor2D, l: Tensor1D): Tensor2D =>
  op(
    [x, l],
    ([input, gain]) => ({ value: mul(input, gain), saved: [input, gain] }),
    (dy, [input, gain]) => [mul(dy, gain), columnSums(mul(dy, input))],
  );

/**
 * Matrices one after the other along an axis: 1 puts [n, a], [n, b] side by side, 0 puts [a, n], [b, n]
 * one below the other.
 */
export function concatenated(parts: readonly Tensor2D[], axis: 0 | 1): Tensor2D {
  const [first, ...others] = parts;
  if (first && others.length === 0) return first;
  const spans = spansOf(parts.map(({ shape }) => shape[axis]));
  return op(
    parts,
    (inputs) => ({ value: sideBySide(inputs, axis), saved: [] }),
    (dy) =>
      spans.map(({ start, size }) =>
        axis === 0 ? slice(dy, [start, 0], [size, -1]) : slice(dy, [0, start], [-1, size]),
      ),
  );
}

/** Some columns of a matrix: [n, width] → [n, size]. */
export const columns = (x: Tensor2D, { start, size }: Span): Tensor2D => {
  const [, width] = x.shape;
  return op(
    [x],
    ([input]) => ({ value: slice(input, [0, start], [-1, size]), saved: [] }),
    (dy) => [
      pad(dy, [
        [0, 0],
        [start, width - start - size],
      ]),
    ],
  );
};

/** P x with a gradient for x alone: P [rows, n] is no weight, x [n, width]. */
export const product = (p: Tensor2D, x: Tensor2D): Tensor2D =>
  op(
    [x],
    ([input]) => ({ value: matMul<Tensor2D>(p, input), saved: [p] }),
    (dy, [saved]) => [matMul(saved, dy, true)],
  );

/** a ⊙ b of one shape: a gate. */
export const times = (a: Tensor2D, b: Tensor2D): Tensor2D =>
  op(
    [a, b],
    ([x, y]) => ({ value: mul(x, y), saved: [x, y] }),
    (dy, [x, y]) => [mul(dy, y), mul(dy, x)],
  );

/** c · x. */
export const multiplied = (x: Tensor2D, factor: number): Tensor2D =>
  op(
    [x],
    ([input]) => ({ value: mul(input, factor), saved: [] }),
    (dy) => [mul(dy, factor)],
  );

/** x / ‖x‖ for every row. */
export const unitRows = (x: Tensor2D): Tensor2D =>
  op(
    [x],
    ([input]) => {
      const inverse = rsqrt(sum(square(input), 1, true));
      const unit = mul<Tensor2D>(input, inverse);
      return { value: unit, saved: [unit, inverse] };
    },
    (dy, [unit, inverse]) => [mul(inverse, sub(dy, mul(unit, sum(mul(dy, unit), 1, true))))],
  );
