import type { MergeHooks } from "../config/options.js";
import type { TrainRecord } from "../train/loop.js";

const clock = (seconds: number): string => {
  const whole = Math.max(0, Math.round(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
};

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
      if (validation)
        accuracy = tasks
          .map((task, i) => `${task} ${(100 * validation.accuracy[i]!).toFixed(0)}%`)
          .join("  ");
      const done = step - first.step;
      const left =
        done > 0 ? `  ${clock(((performance.now() - first.at) / 1000 / done) * (steps - step))} left` : "";
      line(
        `step ${step}/${steps}${loss === undefined ? "" : `  loss ${loss.toFixed(4)}`}  ` +
          `validation: ${accuracy}${left}`,
        validation !== undefined,
      );
    },
  };
}
