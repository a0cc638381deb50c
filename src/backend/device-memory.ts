import { freemem } from "node:os";

/** What an engine may take of its device's memory. */
export interface DeviceMemory {
  readonly bytes: number;
  /** Where the number comes from, for people. */
  readonly from: string;
  /** It is the host's memory: what the one takes, the other lacks. */
  readonly shared: boolean;
}

/** Memory that this process may still take: what is free, or what its container leaves it. */
export function freeMemory(): number {
  const limit = process.constrainedMemory?.();
  if (!limit) return freemem();
  return Math.min(freemem(), Math.max(0, limit - process.memoryUsage().rss));
}

/** Of an engine that computes in the host's memory. */
export const memoryOfHost = (): DeviceMemory => ({
  bytes: 0.8 * freeMemory(),
  from: "four fifths of the free memory",
  shared: true,
});

/** Of a card that does not say how much it has. @param backend tfjs's name of the engine */
export const guessedMemory = (backend: string): DeviceMemory => ({
  bytes: 4 * 2 ** 30,
  from: `a guess: ${backend} does not tell; --memory-budget sets it`,
  shared: false,
});
