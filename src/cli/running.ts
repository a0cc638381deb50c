/** A command while it runs and when it ends: its progress on stderr, Ctrl-C, what it came to. */
import { stoppedCode } from "../errors.js";
import type { MergeHooks, MergeResult } from "../config/options.js";
import type { TrainRecord } from "../train/loop.js";
import { withoutMarks } from "../report/rows.js";
import { resultTable, toText } from "../report/table.js";
import { tableCaption, timeText } from "../report/caption.js";
import { printJson } from "./options.js";

/** Ctrl-C once: finish the step, save, stop. Twice, or outside training: stop at once (the last state stands). */
export function stopOnSignal(
  note: (message: string) => void,
  signals: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"],
): { requested: () => boolean; training: (on: boolean) => void } {
  let requested = false;
  let training = false;
  const handle = () => {
    if (requested || !training) process.exit(stoppedCode);
    requested = true;
    note("stopping after this step; press Ctrl-C again to stop at once");
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
    process.on(signal, signals.includes(signal) ? handle : () => {});
  return { requested: () => requested, training: (on) => void (training = on) };
}

/** Off a terminal, milliseconds between two lines of something that takes long. */
const silentFor = 10_000;

/** A run's time as it is seen while it takes its steps. */
interface RunTime {
  /** The first step that was seen, and when. */
  readonly at: number;
  readonly step: number;
  /** Seconds that measuring takes after the steps; 0 where nobody knows. */
  readonly measuring: number;
}

/** Time that the steps so far took, spread over those that are left, and the measuring after them. */
function leftText({ at, step: begin, measuring }: RunTime, step: number, steps: number): string {
  const done = step - begin;
  if (done <= 0 || step === steps) return "";
  const each = (performance.now() - at) / 1000 / done;
  return `  ${timeText(each * (steps - step) + measuring)} left`;
}

/** Writes what a run tells to stderr: one line rewritten in place on a terminal, few plain lines elsewhere. */
export function progressPrinter(
  stream: NodeJS.WriteStream,
): Required<Pick<MergeHooks, "note" | "progress" | "step" | "expected">> & { end(): void } {
  const live = stream.isTTY;
  let open = false;
  let first: { at: number; step: number } | undefined;
  let accuracy = "";
  let toldAt = performance.now();
  let measuring = 0;
  /** When all is expected to be done, once the steps are. */
  let endsAt: number | undefined;

  const end = () => {
    if (open) stream.write("\n");
    open = false;
  };
  const line = (text: string, keep: boolean) => {
    if (live) {
      stream.write(`\r\x1b[K${text.slice(0, (stream.columns ?? 80) - 1)}`);
      open = true;
      if (keep) end();
    } else if (keep || performance.now() - toldAt > silentFor) {
      stream.write(`${text}\n`);
      toldAt = performance.now();
    }
  };

  return {
    end,
    note(message) {
      end();
      stream.write(`${message}\n`);
      toldAt = performance.now();
    },
    progress(phase, done, of) {
      const left = endsAt === undefined ? "" : `  ${timeText((endsAt - performance.now()) / 1000)} left`;
      line(`${phase} ${done}/${of}${left}`, false);
    },
    expected(seconds) {
      measuring = seconds;
    },
    step({ step, loss, validation }: TrainRecord, tasks, steps) {
      // A step before the first that was seen is another training's.
      if (!first || step < first.step || step === 0) first = { at: performance.now(), step };
      if (validation) {
        const shares = validation.accuracy.map((share) => `${(100 * share).toFixed(0)}%`);
        accuracy = tasks.map((task, i) => `${task} ${shares[i] ?? ""}`).join("  ");
      }
      const told = loss === undefined ? "" : `  loss ${loss.toFixed(4)}`;
      const left = leftText({ ...first, measuring }, step, steps);
      if (step === steps && measuring > 0) endsAt = performance.now() + 1000 * measuring;
      line(`step ${step}/${steps}${told}  validation: ${accuracy}${left}`, validation !== undefined);
    },
  };
}

/** What a reader looks at first in a merge's folder. */
export const mergeFiles = "README.md, report.html, coefficients.png, results.json";

/**
 * Prints what a merge came to: its table, or JSON; or, where it was asked to stop, how to go on.
 * @param options.goOn "the same command …"
 */
export function printOutcome(
  { out, synthetic, rows, finished }: MergeResult,
  options: { json?: boolean | undefined; valPerTask: number; goOn: string; files: string },
  note: (message: string) => void,
): void {
  if (!finished) {
    note(`stopped; ${options.goOn} goes on from ${out}`);
    process.exitCode = stoppedCode;
  } else if (options.json) printJson({ out, synthetic, rows: withoutMarks(rows) });
  else {
    const caption = tableCaption(rows, synthetic, options.valPerTask);
    process.stdout.write(
      `\n${caption}\n${toText(resultTable(rows))}\n\nwritten to ${out} (${options.files})\n`,
    );
  }
}

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
