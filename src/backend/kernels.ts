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
  getKernel,
  registerKernel,
  unregisterKernel,
  type GradConfig,
  type Tensor,
  type KernelFunc,
  type TensorInfo,
} from "@tensorflow/tfjs-core";

type UntypedCall = Parameters<KernelFunc>[0];

/**
 * A call of one of our kernels: its inputs and attributes by name, checked, because tfjs hands them over untyped.
 * @template B the parts of the engine's back end that the kernel touches
 */
export class KernelCall<B> {
  constructor(
    private readonly kernelName: string,
    private readonly untyped: UntypedCall,
  ) {}

  /** The back end that tfjs runs the kernel on: it is the one that the kernel was defined for. */
  get backend(): B {
    return this.untyped.backend as B;
  }

  /** @throws Error where the call has no such input */
  input(name: string): TensorInfo {
    return this.optionalInput(name) ?? this.refuse(`input "${name}"`);
  }

  optionalInput(name: string): TensorInfo | undefined {
    return this.untyped.inputs[name];
  }

  /** @throws Error where the attribute is no number */
  number(name: string): number {
    const value = this.untyped.attrs?.[name];
    if (typeof value !== "number") this.refuse(`number "${name}"`);
    return value;
  }

  /** @throws Error where the attribute is no list of numbers */
  numbers(name: string): number[] {
    const value = this.untyped.attrs?.[name];
    if (!isNumbers(value)) this.refuse(`list of numbers "${name}"`);
    return value;
  }

  /** Whether an attribute is set. */
  flag(name: string): boolean {
    return this.untyped.attrs?.[name] === true;
  }

  /** What another kernel of the same engine makes of this call. */
  passTo(kernel: KernelFunc): TensorInfo {
    return oneTensor(kernel(this.untyped));
  }

  private refuse(what: string): never {
    throw new Error(`${this.kernelName}: the call has no ${what}`);
  }
}

export const isNumbers = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((item) => typeof item === "number");

function oneTensor(made: TensorInfo | TensorInfo[]): TensorInfo {
  if (Array.isArray(made)) throw new Error(`one tensor was expected of a kernel, it made ${made.length}`);
  return made;
}

/** Adds a kernel to an engine, in the place of the one that the engine may have. */
export function defineKernel<B>(
  backendName: string,
  kernelName: string,
  compute: (call: KernelCall<B>) => TensorInfo,
): void {
  const shipped = getKernel(kernelName, backendName);
  if (shipped) unregisterKernel(kernelName, backendName);
  registerKernel({
    kernelName,
    backendName,
    // The one it replaces may still be called, by this one and by kernels that know it by its function: it must be
    // set up too.
    ...(shipped?.setupFunc && { setupFunc: shipped.setupFunc }),
    kernelFunc: (untyped) => compute(new KernelCall<B>(kernelName, untyped)),
  });
}

/** Runs a kernel that an engine has. */
export const runKernel = (backendName: string, kernelName: string, call: UntypedCall): TensorInfo =>
  oneTensor(getKernel(kernelName, backendName).kernelFunc(call));

/** The sizes of a tensor of three axes. @throws Error where it has others */
export function threeSizes({ shape }: TensorInfo): [number, number, number] {
  const [first, second, third] = shape;
  if (first === undefined || second === undefined || third === undefined || shape.length !== 3)
    throw new Error(`a tensor of three axes was expected, not [${shape.join(", ")}]`);
  return [first, second, third];
}

/** The sizes of the last two axes. @throws Error where there are none */
export function matrixSizes({ shape }: TensorInfo): [rows: number, columns: number] {
  const [rows, columns] = shape.slice(-2);
  if (rows === undefined || columns === undefined)
    throw new Error(`a matrix was expected, not [${shape.join(", ")}]`);
  return [rows, columns];
}

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
