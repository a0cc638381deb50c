import type { MergeResult } from "../config/options.js";
import { stoppedCode } from "../errors.js";
import { resultTable, tableCaption, toText } from "../report/table.js";
import { printJson } from "./options.js";

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
  } else if (options.json) printJson({ out, synthetic, rows });
  else {
    const caption = tableCaption(rows, synthetic, options.valPerTask);
    process.stdout.write(
      `\n${caption}\n${toText(resultTable(rows))}\n\nwritten to ${out} (${options.files})\n`,
    );
  }
}
