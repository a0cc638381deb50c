import type { DeviceMemory } from "./device-memory.js";

/** Why an engine cannot run, with the line that mends just that. */
export class EngineProblem extends Error {
  constructor(
    message: string,
    readonly mend: string,
  ) {
    super(message);
  }
}

/** An engine that was loaded. */
export interface Loaded {
  /** tfjs's own name for it. */
  readonly backend: string;
  /** What it runs on, for people: a version, a card, a number of threads. */
  readonly text: string;
  /** A card that is only emulated on the CPU: good for tests, and never taken by `auto`. */
  readonly emulated?: boolean;
}

/**
 * All that is known of an engine. The file that has it imports tfjs inside of `load` only: the list of engines is read
 * by every command, and most start none of them.
 */
export interface Engine<Name extends string = string> {
  readonly name: Name;
  readonly what: string;
  /** What must be there, for people. */
  readonly needs: string;
  /** Which cards it was run on, by date, and what stands untested; for those that need one. */
  readonly tried?: string;
  /** The one line that makes it available, where the problem has none of its own. */
  readonly mend: string;
  /**
   * Its tensors lie in a heap that each process has for itself: processes do not share it, and no budget lifts its
   * bound. Otherwise they lie in the machine's memory or a card's, which all processes share.
   */
  readonly ownHeap: boolean;
  /** What it may take of its device's memory; asked when it runs. */
  deviceMemory(): DeviceMemory;
  /** @throws Error saying in a line why it cannot run, EngineProblem where it knows what mends that */
  load(threads?: number): Promise<Loaded>;
}
