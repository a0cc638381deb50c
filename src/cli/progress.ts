import type { MergeHooks } from "../config/options.js";
import type { TrainRecord } from "../train/loop.js";

/** A time that is left: "12 s", "3 min 05 s". */
function timeText(seconds: number): string {
  const rounded = Math.max(0, Math.round(seconds));
  if (rounded < 60) return `${rounded} s`;
  return `${Math.floor(rounded / 60)} min ${String(rounded % 60).padStart(2, "0")} s`;
}

/** Time that the steps so far took, spread over those that are left. */
function leftText(first: { at: number; step: number }, step: number, steps: number): string {
  const done = step - first.step;
  if (done <= 0) return "";
  const each = (performance.now() - first.at) / 1000 / done;
  return `  ${timeText(each * (steps - step))} left`;
}

/** Writes what a run tells to stderr: one line rewritten in place on a terminal, few plain lines elsewhere. */
export function progressPrinter(
  stream: NodeJS.WriteStream,
): Pick<MergeHooks, "note" | "progress" | "step"> & { end(): void } {
  const live = stream.isTTY;
  let open = false;
  let first: { at: number; step: number } | undefined;
  let accuracy = "";

  const end = () => {
    if (open) stream.write("\n");
    open = false;
  };
  const line = (text: string, keep: boolean) => {
    if (live) {
      stream.write(`\r\x1b[K${text.slice(0, (stream.columns ?? 80) - 1)}`);
      open = true;
      if (keep) end();
    } else if (keep) {
      stream.write(`${text}\n`);
    }
  };

  return {
    end,
    note(message) {
      end();
      stream.write(`${message}\n`);
    },
    progress(phase, done, of) {
      line(`${phase} ${done}/${of}`, false);
    },
    step({ step, loss, validation }: TrainRecord, tasks, steps) {
      // A step before the first that was seen is another training's.
      if (!first || step < first.step || step === 0) first = { at: performance.now(), step };
      if (validation) {
        const shares = validation.accuracy.map((share) => `${(100 * share).toFixed(0)}%`);
        accuracy = tasks.map((task, i) => `${task} ${shares[i] ?? ""}`).join("  ");
      }
      const told = loss === undefined ? "" : `  loss ${loss.toFixed(4)}`;
      const left = leftText(first, step, steps);
      line(`step ${step}/${steps}${told}  validation: ${accuracy}${left}`, validation !== undefined);
    },
  };
}
