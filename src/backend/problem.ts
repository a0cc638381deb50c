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
