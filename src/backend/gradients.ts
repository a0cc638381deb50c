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
  type GradConfig,
  type Tensor,
} from "@tensorflow/tfjs-core";
import { isNumbers } from "./kernels.js";

type Attributes = Parameters<GradConfig["gradFunc"]>[2];

/** What a gradient is given. */
interface GradientCall {
  readonly dy: Tensor;
  /** An input or the output that was kept, by its name. */
  readonly saved: (name: string) => Tensor;
  readonly attributes: Attributes;
}

interface KernelGradient {
  /** Inputs to keep. */
  readonly inputs?: readonly string[];
  /** Whether the output is kept: it is called "y". */
  readonly output?: boolean;
  /** The gradient of each input, by its name. */
  gradient(call: GradientCall): Record<string, () => Tensor>;
}

/** Sums `dy` over the axes along which an operand of `shape` was broadcast. */
function unbroadcast(dy: Tensor, shape: number[]): Tensor {
  const lead = dy.shape.length - shape.length;
  const axes = [...dy.shape.entries()]
    .filter(([axis, size]) => axis < lead || (shape[axis - lead] === 1 && size !== 1))
    .map(([axis]) => axis);
  // A handle of its own: whoever takes a gradient may free it (models/ops.ts does).
  if (axes.length === 0) return clone(dy);
  return reshape(sum(dy, axes), shape);
}

/** `dy` of a sum over some axes (undefined: all), as large as what was summed. */
function spreadSum(dy: Tensor, x: Tensor, axis: unknown): Tensor {
  const axes = new Set([axis ?? [...x.shape.keys()]].flat());
  const kept = x.shape.map((size, i) => (axes.has(i) ? 1 : size));
  return mul(reshape(dy, kept), ones(x.shape));
}

/** The permutation that undoes one. */
function inverse(perm: unknown): number[] {
  if (!isNumbers(perm)) throw new TypeError("Transpose: perm must be a list of numbers");
  return perm.map((_, i) => perm.indexOf(i));
}

/**
 * Gradients of the few tfjs kernels our models use beside their own custom-gradient ops (models/ops.ts).
 * tfjs-core alone registers none, and the union package that does weighs 220 MB.
 */
const gradients: Readonly<Record<string, KernelGradient>> = {
  Add: {
    inputs: ["a", "b"],
    gradient: ({ dy, saved }) => ({
      a: () => unbroadcast(dy, saved("a").shape),
      b: () => unbroadcast(dy, saved("b").shape),
    }),
  },
  Sub: {
    inputs: ["a", "b"],
    gradient: ({ dy, saved }) => ({
      a: () => unbroadcast(dy, saved("a").shape),
      b: () => unbroadcast(mul(dy, -1), saved("b").shape),
    }),
  },
  Multiply: {
    inputs: ["a", "b"],
    gradient: ({ dy, saved }) => ({
      a: () => unbroadcast(mul(dy, saved("b")), saved("a").shape),
      b: () => unbroadcast(mul(dy, saved("a")), saved("b").shape),
    }),
  },
  Reshape: {
    inputs: ["x"],
    gradient: ({ dy, saved }) => ({ x: () => reshape(dy, saved("x").shape) }),
  },
  Identity: { gradient: ({ dy }) => ({ x: () => clone(dy) }) },
  Tanh: {
    output: true,
    gradient: ({ dy, saved }) => ({ x: () => mul(dy, sub(1, square(saved("y")))) }),
  },
  Sum: {
    inputs: ["x"],
    gradient: ({ dy, saved, attributes }) => ({ x: () => spreadSum(dy, saved("x"), attributes["axis"]) }),
  },
  Transpose: {
    gradient: ({ dy, attributes }) => ({ x: () => transpose(dy, inverse(attributes["perm"])) }),
  },
};

/** Registers every gradient above that no package has registered yet. */
export function registerGradients(): void {
  for (const [kernelName, { inputs = [], output = false, gradient }] of Object.entries(gradients)) {
    if (getGradient(kernelName)) continue;
    // tfjs hands over the inputs that it kept, in this order, and then the output.
    const names = [...inputs, "y"];
    registerGradient({
      kernelName,
      inputsToSave: [...inputs],
      outputsToSave: [output],
      gradFunc(dy, kept, attributes) {
        if (Array.isArray(dy)) throw new Error(`${kernelName}: it has one output`);
        const saved = (name: string): Tensor => {
          const tensor = kept[names.indexOf(name)];
          if (!tensor) throw new Error(`${kernelName}: "${name}" was not kept`);
          return tensor;
        };
        return gradient({ dy, saved, attributes });
      },
    });
  }
}
