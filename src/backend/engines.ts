import { cpu } from "./cpu.js";
import type { Engine } from "./engine.js";
import { node, nodeGpu } from "./native.js";
import { wasm } from "./wasm.js";
import { webgpu } from "./webgpu.js";

/** The engines a user can ask for, in the order `auto` tries them: fastest first. */
const fastestFirst = [nodeGpu, webgpu, node, wasm, cpu] as const;

export type EngineName = (typeof fastestFirst)[number]["name"];

export const engines: readonly Engine<EngineName>[] = fastestFirst;
export const engineNames: readonly EngineName[] = fastestFirst.map(({ name }) => name);

/** @throws Error where there is no engine of that name */
export function engineNamed(name: string): Engine<EngineName> {
  const found = engines.find((engine) => engine.name === name);
  if (!found) throw new Error(`there is no engine "${name}"`);
  return found;
}
