import {
  clone,
  getGradient,
  mul,
  ones,
  registerGradient,
  reshape,
  square,
  sub,
  sum,
  transpose,
  type Tensor,
} from "@tensorflow/tfjs-core";

type Gradient = (dy: Tensor, saved: Tensor[], attrs: Record<string, unknown>) => Record<string, () => Tensor>;

/** Sums `dy` over the axes along which an operand of `shape` was broadcast. */
function unbroadcast(dy: Tensor, shape: number[]): Tensor {
  const lead = dy.shape.length - shape.length;
  const axes = dy.shape.flatMap((size, axis) =>
    axis < lead || (shape[axis - lead] === 1 && size !== 1) ? [axis] : [],
  );
  // A handle of its own: whoever takes a gradient may free it (models/ops.ts does).
  return axes.length ? reshape(sum(dy, axes), shape) : clone(dy);
}

/**
 * Gradients of the few tfjs kernels our models use beside their own custom-gradient ops (models/ops.ts).
 * tfjs-core alone registers none, and the union package that does weighs 220 MB.
 */
const gradients: Record<string, { inputs?: string[]; output?: boolean; gradient: Gradient }> = {
  Add: {
    inputs: ["a", "b"],
    gradient: (dy, [a, b]) => ({ a: () => unbroadcast(dy, a!.shape), b: () => unbroadcast(dy, b!.shape) }),
  },
  Sub: {
    inputs: ["a", "b"],
    gradient: (dy, [a, b]) => ({
      a: () => unbroadcast(dy, a!.shape),
      b: () => unbroadcast(mul(dy, -1), b!.shape),
    }),
  },
  Multiply: {
    inputs: ["a", "b"],
    gradient: (dy, [a, b]) => ({
      a: () => unbroadcast(mul(dy, b!), a!.shape),
      b: () => unbroadcast(mul(dy, a!), b!.shape),
    }),
  },
  Reshape: { inputs: ["x"], gradient: (dy, [x]) => ({ x: () => reshape(dy, x!.shape) }) },
  Identity: { gradient: (dy) => ({ x: () => clone(dy) }) },
  Tanh: { output: true, gradient: (dy, [y]) => ({ x: () => mul(dy, sub(1, square(y!))) }) },
  Sum: {
    inputs: ["x"],
    gradient: (dy, [x], { axis }) => ({
      x: () => {
        const axes = new Set([axis ?? x!.shape.map((_, i) => i)].flat() as number[]);
        return mul(
          reshape(
            dy,
            x!.shape.map((size, i) => (axes.has(i) ? 1 : size)),
          ),
          ones(x!.shape),
        );
      },
    }),
  },
  Transpose: {
    gradient: (dy, _, { perm }) => ({
      x: () =>
        transpose(
          dy,
          (perm as number[]).map((__, i) => (perm as number[]).indexOf(i)),
        ),
    }),
  },
};

/** Registers every gradient above that no package has registered yet. */
export function registerGradients(): void {
  for (const [kernelName, { inputs, output, gradient }] of Object.entries(gradients)) {
    if (getGradient(kernelName)) continue;
    registerGradient({
      kernelName,
      ...(inputs && { inputsToSave: inputs }),
      ...(output && { outputsToSave: [true] }),
      gradFunc: gradient as never,
    });
  }
}
