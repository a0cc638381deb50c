import { execFileSync } from "node:child_process";
import { freemem } from "node:os";
import { engine, getBackend } from "@tensorflow/tfjs-core";
import type { EngineName } from "./engines.js";

/** tfjs's own books: a buffer is counted once, however many handles share it. */
interface Books {
  state: { tensorInfo: { get(id: object): { bytes: number } | undefined; has(id: object): boolean } };
  trackTensor(tensor: { dataId: object }, backend: unknown): void;
  removeDataId(id: object, backend: unknown): void;
}

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
    const books = engine() as unknown as Books;
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

/** Memory that this process may still take: what is free, or what its container leaves it. */
export function freeMemory(): number {
  const limit = process.constrainedMemory?.();
  return limit ? Math.min(freemem(), Math.max(0, limit - process.memoryUsage().rss)) : freemem();
}

/** What an engine may take of its device's memory, in bytes, and where the number comes from. */
export function deviceMemory(name: EngineName): { bytes: number; from: string; shared: boolean } {
  if (name === "wasm")
    return {
      bytes: Math.min(3.6 * 2 ** 30, 0.8 * freeMemory()),
      from: "the 4 GiB heap of WebAssembly",
      shared: true,
    };
  if (name === "node" || name === "cpu")
    return { bytes: 0.8 * freeMemory(), from: "four fifths of the free memory", shared: true };
  if (name === "node-gpu") {
    try {
      const [mebibytes] = execFileSync(
        "nvidia-smi",
        ["--query-gpu=memory.free", "--format=csv,noheader,nounits"],
        { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] },
      ).split("\n");
      if (Number(mebibytes) > 0)
        return {
          bytes: 0.9 * Number(mebibytes) * 2 ** 20,
          from: "nine tenths of the card's free memory",
          shared: false,
        };
    } catch {
      // No nvidia-smi: the guess below.
    }
  }
  return {
    bytes: 4 * 2 ** 30,
    from: `a guess: ${getBackend()} does not tell; --memory-budget sets it`,
    shared: false,
  };
}
