import { engine, ready, setBackend, version_core } from "@tensorflow/tfjs-core";
import { messageOf, UserError } from "../errors.js";
import { EngineProblem, type Loaded } from "./engine.js";
import { engineNamed, engines, type EngineName } from "./engines.js";
import { registerGradients } from "./kernels.js";

export { cacheFolder, freeMemory, type DeviceMemory } from "./engine.js";
export { engineNamed, engineNames, type EngineName } from "./engines.js";
export { surveyEngines, type EngineStatus } from "./survey.js";
export { webgpuCounts } from "./webgpu-load.js";
export type { WebgpuCounts } from "./webgpu-queue.js";

/**
 * Starts one engine and makes it tfjs's current back end.
 * @param chosen whether the user named it: then a card that is only emulated will do
 */
export async function startNamed(name: EngineName, chosen: boolean, threads?: number): Promise<Loaded> {
  const loaded = await engineNamed(name).load(threads);
  if (loaded.emulated && !chosen)
    throw new EngineProblem(`${loaded.text} only emulates a card`, `--backend ${name} takes it all the same`);
  if (!(await setBackend(loaded.backend))) throw new Error("it was loaded but did not start");
  await ready();
  registerGradients();
  return loaded;
}

/** The engine that runs in this process, and on what: it is started once. */
let running: (Loaded & { readonly name: EngineName }) | undefined;

/** What the running engine runs on; undefined where none was started. */
export const runningOn = (): Readonly<Loaded> | undefined => running;

/** Why something failed, in a line. */
export function reasonOf(error: unknown): string {
  const [line = ""] = messageOf(error).split("\n");
  return line;
}

/**
 * Starts an engine and makes it tfjs's current back end. `auto` takes the first of
 * {@link engineNames} that works here.
 * @param threads how many the wasm engine takes; the others know best themselves. Undefined: a thread a core
 * @throws UserError when the named engine does not start: why, and the line that mends it.
 */
export async function startEngine(
  choice: EngineName | "auto" = "auto",
  threads?: number,
): Promise<EngineName> {
  if (running !== undefined && (choice === "auto" || choice === running.name)) return running.name;
  let problem = "";
  for (const { name, mend } of engines.filter((engine) => choice === "auto" || engine.name === choice)) {
    try {
      running = { ...(await startNamed(name, choice !== "auto", threads)), name };
      return name;
    } catch (error) {
      const how = error instanceof EngineProblem ? error.mend : mend;
      problem = `--backend ${name}: ${reasonOf(error)}; to fix it: ${how}`;
    }
  }
  throw new UserError(problem);
}

export const tfjsVersion = version_core;

/** tfjs's own books: a buffer is counted once, however many handles share it. */
interface Books {
  state: { tensorInfo: { get(id: object): { bytes: number } | undefined; has(id: object): boolean } };
  trackTensor(tensor: { dataId: object }, backend: unknown): void;
  removeDataId(id: object, backend: unknown): void;
}

/** They are private to tfjs, which has no other way to see a buffer come and go. */
const tfjsBooks = (): Books => engine();

let live = 0;
let highest = 0;
let watching = false;

/**
 * Counts the bytes of all buffers that tfjs holds from now on. What a kernel takes for itself while it
 * runs is not in it.
 * @returns the highest count since the last call of `reset`, and the count now
 */
export function watchMemory(): { peak(): number; live(): number; reset(): void } {
  if (!watching) {
    watching = true;
    const books = tfjsBooks();
    const { tensorInfo } = books.state;
    const [track, remove] = [books.trackTensor.bind(books), books.removeDataId.bind(books)];
    books.trackTensor = (tensor, backend) => {
      const known = tensorInfo.has(tensor.dataId);
      track(tensor, backend);
      if (known) return;
      live += tensorInfo.get(tensor.dataId)?.bytes ?? 0;
      highest = Math.max(highest, live);
    };
    books.removeDataId = (id, backend) => {
      live -= tensorInfo.get(id)?.bytes ?? 0;
      remove(id, backend);
    };
  }
  return { peak: () => highest, live: () => live, reset: () => void (highest = live) };
}
