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
  matMul,
  mean,
  mul,
  ones,
  reshape,
  rsqrt,
  slice,
  square,
  sub,
  sum,
  tensor1d,
  tidy,
  unsortedSegmentSum,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import type { Weights } from "./types.js";

type Backward = (dy: Tensor, saved: Tensor[]) => Tensor[];

/**
 * customGrad with honest types: `forward` gets the inputs and `save`, and returns the value and its backward.
 * A backward may use saved tensors only: whatever else the forward made or was given is gone by then. When it
 * returns, its intermediates, what was saved and `dy` are freed, so that memory falls as the gradient runs back
 * (tfjs would hold all of it to the end); nobody else may hold that `dy`.
 */
export function op<Out extends Tensor>(
  inputs: Tensor[],
  forward: (inputs: Tensor[], save: (tensors: Tensor[]) => void) => { value: Out; backward: Backward },
): Out {
  const wrapped = customGrad((...args: unknown[]) => {
    const save = args.pop() as (tensors: Tensor[]) => void;
    const { value, backward } = forward(args as Tensor[], save);
    return {
      value,
      gradFunc(dy: Tensor | Tensor[], saved: Tensor[]) {
        // A gradient that is dy itself gets a handle of its own.
        const gradients = tidy(() =>
          backward(dy as Tensor, saved).map((g) => (g === dy || saved.includes(g) ? clone(g) : g)),
        );
        dispose([dy, ...saved]);
        return gradients;
      },
    };
  });
  return wrapped(...inputs);
}

/** Sum over the rows of x [n, width] → [width], as a product: engines reduce over the first axis slowly. */
const columnSums = (x: Tensor): Tensor => reshape(matMul(ones([1, x.shape[0]]), x), [-1]);

/** Rows of a table: [n, width] gathered at ids [m] → [m, width]. An embedding, or the choice of some tokens. */
export function rows(table: Tensor2D, ids: Tensor1D): Tensor2D {
  const [count] = table.shape;
  return op<Tensor2D>([table], ([source], save) => {
    save([ids]);
    return {
      value: gather(source as Tensor2D, ids),
      backward: (dy, [savedIds]) => [unsortedSegmentSum(dy, savedIds as Tensor1D, count)],
    };
  });
}

/** a + b of one shape: a residual connection. */
export function plus(a: Tensor2D, b: Tensor2D): Tensor2D {
  return op<Tensor2D>([a, b], ([x, y]) => ({ value: add(x!, y!), backward: (dy) => [dy, dy] }));
}

/** Σ⟨x_i, direction_i⟩: its gradient at x_i is direction_i, which carries a gradient on from where it was cut. */
export function along(xs: Tensor[], directions: readonly Tensor[]): Tensor {
  return op(xs, (inputs, save) => {
    save(directions.map((d) => clone(d)));
    return {
      value: inputs.map((x, i) => sum(mul(x, directions[i]!))).reduce((a, b) => add(a, b)),
      backward: (dy, saved) => saved.map((direction) => mul(direction, dy)),
    };
  });
}

/** Rows of a table by its name: only those, where the weights can make them alone. */
export const lookup = (weights: Weights, name: string, ids: Int32Array): Tensor2D =>
  weights.rows?.(name, ids) ?? rows(weights(name) as Tensor2D, tensor1d(ids, "int32"));

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

/** x Wᵀ + b for one dense layer, or for several side by side in one product: x [n, in] → [n, Σ out]. */
export function linear(x: Tensor2D, layers: readonly Dense[]): Tensor2D {
  const trained = !layers.every(({ frozen }) => frozen);
  const transposed = layers[0]!.transposed ?? false;
  const biased = layers[0]!.bias !== undefined;
  const parameters = layers.flatMap(({ weight, bias }) => (bias ? [weight, bias] : [weight]) as Tensor[]);
  const side = (tensors: Tensor[]) => (tensors.length === 1 ? tensors[0]! : concat(tensors, 0));
  const outs = layers.map(({ weight }) => weight.shape[transposed ? 1 : 0]);
  const starts = outs.map((_, i) => outs.slice(0, i).reduce((sum, out) => sum + out, 0));
  return op<Tensor2D>(trained ? [x, ...parameters] : [x], ([input], save) => {
    const w = side(layers.map(({ weight }) => weight));
    save(trained ? [w, input!] : [w]);
    const product: Tensor2D = matMul(input as Tensor2D, w as Tensor2D, false, !transposed);
    return {
      value: biased ? add<Tensor2D>(product, side(layers.map(({ bias }) => bias!))) : product,
      backward(dy, [savedW, savedX]) {
        const dx = matMul(dy, savedW!, false, transposed);
        if (!trained) return [dx];
        const dw = transposed ? matMul(savedX!, dy, true, false) : matMul(dy, savedX!, true, false);
        const db = biased ? columnSums(dy) : undefined;
        if (layers.length === 1) return db ? [dx, dw, db] : [dx, dw];
        return [
          dx,
          ...outs.flatMap((out, i) => [
            slice(dw, [starts[i]!, 0], [out, -1]),
            ...(db ? [slice(db, [starts[i]!], [out])] : []),
          ]),
        ];
      },
    };
  });
}

/** ((x Aᵀ) ⊙ d) Bᵀ, with a gradient for x and d: A [rank, in] and B [out, rank] are frozen (LoRA, Hu et al. 2021). */
export function lowRank(x: Tensor2D, a: Tensor2D, b: Tensor2D, d: Tensor1D): Tensor2D {
  return op<Tensor2D>([x, d], ([input, gain], save) => {
    const z = matMul(input as Tensor2D, a, false, true);
    save([a, b, gain!, z]);
    return {
      value: matMul(mul<Tensor2D>(z, gain!), b, false, true),
      backward(dy, [sa, sb, sd, sz]) {
        const inner = matMul(dy, sb!);
        return [matMul(mul(inner, sd!), sa!), columnSums(mul(inner, sz!))];
      },
    };
  });
}

/** x ⊙ l for every row: x [n, width], l [width]. */
export function scaled(x: Tensor2D, l: Tensor1D): Tensor2D {
  return op<Tensor2D>([x, l], ([input, gain], save) => {
    save([input!, gain!]);
    return {
      value: mul<Tensor2D>(input!, gain!),
      backward: (dy, [sx, sl]) => [mul(dy, sl!), columnSums(mul(dy, sx!))],
    };
  });
}

/**
 * Matrices one after the other along an axis: 1 puts [n, a], [n, b] side by side, 0 puts [a, n], [b, n]
 * one below the other.
 */
export function joined(parts: Tensor2D[], axis: 0 | 1): Tensor2D {
  if (parts.length === 1) return parts[0]!;
  const sizes = parts.map(({ shape }) => shape[axis]);
  const starts = sizes.map((_, i) => sizes.slice(0, i).reduce((sum, size) => sum + size, 0));
  const [at, of] = [
    (start: number) => (axis ? [0, start] : [start, 0]),
    (size: number) => (axis ? [-1, size] : [size, -1]),
  ];
  return op<Tensor2D>(parts, (inputs) => ({
    value: concat(inputs as Tensor2D[], axis),
    backward: (dy) => sizes.map((size, i) => slice(dy, at(starts[i]!), of(size))),
  }));
}

/** a ⊙ b of one shape: a gate. */
export function times(a: Tensor2D, b: Tensor2D): Tensor2D {
  return op<Tensor2D>([a, b], ([x, y], save) => {
    save([x!, y!]);
    return { value: mul<Tensor2D>(x!, y!), backward: (dy, [sx, sy]) => [mul(dy, sy!), mul(dy, sx!)] };
  });
}

/** c · x. */
export function multiplied(x: Tensor2D, factor: number): Tensor2D {
  return op<Tensor2D>([x], ([input]) => ({
    value: mul<Tensor2D>(input!, factor),
    backward: (dy) => [mul(dy, factor)],
  }));
}

/** Layer normalisation over the last axis: x [n, width], scale and shift [width]. */
export function layerNorm(x: Tensor2D, scale: Tensor1D, shift: Tensor1D, epsilon: number): Tensor2D {
  return op<Tensor2D>([x, scale, shift], ([input, gamma, beta], save) => {
    const centred = sub(input!, mean(input!, 1, true));
    const inverse = rsqrt(add(mean(square(centred), 1, true), epsilon));
    const normal = mul(centred, inverse);
    save([normal, inverse, gamma!]);
    return {
      value: add<Tensor2D>(mul(normal, gamma!), beta!),
      backward: (dy, [n, inv, g]) => {
        const dNormal = mul(dy, g!);
        const along = mean(mul(dNormal, n!), 1, true);
        const dx = mul(inv!, sub(sub(dNormal, mean(dNormal, 1, true)), mul(n!, along)));
        return [dx, columnSums(mul(dy, n!)), columnSums(dy)];
      },
    };
  });
}

/** x / √(mean x² + ε) ⊙ scale over the last axis: x [n, width], scale [width] (Zhang & Sennrich 2019). */
export function rmsNorm(x: Tensor2D, scale: Tensor1D, epsilon: number): Tensor2D {
  return op<Tensor2D>([x, scale], ([input, gamma], save) => {
    const inverse = rsqrt(add(mean(square(input!), 1, true), epsilon));
    const normal = mul(input!, inverse);
    save([normal, inverse, gamma!]);
    return {
      value: mul<Tensor2D>(normal, gamma!),
      backward: (dy, [n, inv, g]) => {
        const dNormal = mul(dy, g!);
        return [mul(inv!, sub(dNormal, mul(n!, mean(mul(dNormal, n!), 1, true)))), columnSums(mul(dy, n!))];
      },
    };
  });
}

/** x / ‖x‖ for every row. */
export function unitRows(x: Tensor2D): Tensor2D {
  return op<Tensor2D>([x], ([input], save) => {
    const inverse = rsqrt(sum(square(input!), 1, true));
    const unit = mul<Tensor2D>(input!, inverse);
    save([unit, inverse]);
    return {
      value: unit,
      backward: (dy, [u, inv]) => [mul(inv!, sub(dy, mul(u!, sum(mul(dy, u!), 1, true))))],
    };
  });
}
