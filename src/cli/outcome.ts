import { resultTable, tableCaption, toText } from "../report/table.js";
import { type MergeResult } from "../config/options.js";
import { stoppedCode } from "../errors.js";

/**
 * Prints what a merge came to: its table, or JSON; or, where it was asked to stop, how to go on.
 * @param goOn "the same command …"
 */
export function printOutcome(
  result: MergeResult,
  options: { json?: boolean | undefined; valPerTask: number; goOn: string; files: string },
  note: (message: string) => void,
): void {
  const { out, synthetic, rows, finished } = result;
  if (!finished) {
    note(`stopped; ${options.goOn} goes on from ${out}`);
    process.exitCode = stoppedCode;
  } else if (options.json) {
    process.stdout.write(`${JSON.stringify({ out, synthetic, rows }, undefined, 2)}\n`);
  } else {
    process.stdout.write(
      `\n${tableCaption(rows, synthetic, options.valPerTask)}\n${toText(resultTable(rows))}\n\nwritten ` +
        `to ${out} (${options.files})\n`,
    );
  }
}
