import { engine, getBackend, getKernel, type Tensor } from "@tensorflow/tfjs-core";

/** Whether the engine that runs has a kernel of ours (backend/) beside tfjs's own. */
export const hasKernel = (name: string): boolean => getKernel(name, getBackend()) !== undefined;

/** Runs one of the engine's own kernels. @throws Error where it has no such kernel */
export const runOwn = <T extends Tensor>(
  name: string,
  inputs: Record<string, Tensor>,
  attributes: Record<string, number | boolean> = {},
): T => engine().runKernel(name, inputs, attributes);
