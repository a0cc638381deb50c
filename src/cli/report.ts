import type { Command } from "commander";

export function addReport(program: Command): void {
  program
    .command("report <folder>")
    .description(
      "make a finished merge's report anew: one HTML page with its results, curves, coefficients and inputs",
    )
    .addHelpText(
      "after",
      "\nExample:\n  $ train-merge report merged/mini-rte+cb+copa\nA merge writes its " +
        "report.html itself; this makes it again, of a folder that an older version wrote too.",
    )
    .action(async (folder: string) => {
      const { writeReport } = await import("../folder/report.js");
      process.stdout.write(`written to ${await writeReport(folder)}\n`);
    });
}
