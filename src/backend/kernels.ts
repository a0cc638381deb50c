import {
  getKernel,
  registerKernel,
  unregisterKernel,
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
