import type { MergeHooks } from "../config/options.js";
import { progressPrinter } from "./progress.js";
import { stopOnSignal } from "./signals.js";

/** What a command that takes a while tells on stderr, and whether it was asked to stop. */
export interface RunningCommand extends MergeHooks {
  /** Whether the first Ctrl-C lets the work end in order; else it stops at once. */
  training(on: boolean): void;
  /** Ends the line that shows the progress. */
  end(): void;
}

/**
 * Shows progress on stderr, and handles Ctrl-C: during training the step is finished and the state saved.
 * @param signals those that ask it to stop (default: SIGINT and SIGTERM)
 */
export function startCommand(signals?: readonly NodeJS.Signals[]): RunningCommand {
  const printer = progressPrinter(process.stderr);
  const stop = stopOnSignal(printer.note, signals);
  return {
    ...printer,
    training: stop.training,
    stopping: stop.requested,
    step(record, tasks, steps) {
      stop.training(record.step < steps);
      printer.step(record, tasks, steps);
    },
  };
}
