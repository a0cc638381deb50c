/** What came of an attempt, as the command line would show it. */
import { explain, messageOf, safeLine, UserError } from "../../src/errors.js";

export type Outcome = "refused" | "taken" | "fault" | "RangeError";

export interface Tried {
  readonly outcome: Outcome;
  /** One line; of a fault all of it. */
  readonly message: string;
}

export async function outcomeOf(run: () => Promise<unknown>): Promise<Tried> {
  try {
    await run();
    return { outcome: "taken", message: "" };
  } catch (thrown) {
    const error = explain(thrown);
    if (error instanceof UserError) return { outcome: "refused", message: safeLine(messageOf(error)) };
    const message = String((error as Error).stack ?? error);
    return { outcome: error instanceof RangeError ? "RangeError" : "fault", message };
  }
}
