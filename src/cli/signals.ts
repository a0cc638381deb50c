import { stoppedCode } from "../errors.js";

/** Ctrl-C once: finish the step, save, stop. Twice, or outside training: stop at once (the last state stands). */
export function stopOnSignal(
  note: (message: string) => void,
  signals: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM"],
): { requested: () => boolean; training: (on: boolean) => void } {
  let requested = false;
  let training = false;
  const handle = () => {
    if (requested || !training) process.exit(stoppedCode);
    requested = true;
    note("stopping after this step; press Ctrl-C again to stop at once");
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.on(signal, signals.includes(signal) ? handle : () => {});
  return { requested: () => requested, training: (on) => void (training = on) };
}
