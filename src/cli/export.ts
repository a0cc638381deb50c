import type { Command } from "commander";

export function addExport(program: Command): void {
  program
    .command("export <folder>")
    .description("write a finished merge as a mergekit file that makes the same model")
    .option("--to <file>", "where to write (default: stdout)")
    .addHelpText(
      "after",
      "\nExample:\n  $ train-merge export merged/mini-rte+cb+copa --to merge.yml\n  $ " +
        "mergekit-yaml merge.yml out       or: train-merge merge merge.yml --out out",
    )
    .action(async (folder: string, { to }: { to?: string }) => {
      const [{ mergekitOf }, { writeText }] = await Promise.all([
        import("../run/export.js"),
        import("../checkpoint/files.js"),
      ]);
      const text = await mergekitOf(folder);
      if (to === undefined) process.stdout.write(text);
      else await writeText(to, text);
    });
}
