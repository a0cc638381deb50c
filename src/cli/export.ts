import type { Command } from "commander";
import { UsageError } from "../errors.js";

export function addExport(program: Command): void {
  program
    .command("export <folder>")
    .description(
      "write one task's model out of a finished merge, or a mergekit file that makes the same merge",
    )
    .option("--task <name>", "the task whose model is written, as transformers (or PEFT) opens it")
    .option("--to <path>", "where to write: a folder for a model, a file for mergekit (default: stdout)")
    .addHelpText(
      "after",
      "\nExamples:\n  $ train-merge export merged/mini-rte+cb+copa --task rte --to rte-model\n  $ " +
        "train-merge export merged/mini-rte+cb+copa --to merge.yml\n  $ " +
        "mergekit-yaml merge.yml out       or: train-merge merge merge.yml --out out",
    )
    .action(async (folder: string, { task, to }: { task?: string; to?: string }) => {
      if (task !== undefined) {
        if (to === undefined) throw new UsageError("--task: name the folder to write with --to");
        const { exportTask } = await import("../run/task-models.js");
        await exportTask(folder, task, to);
        process.stderr.write(`written to ${to}\n`);
        return;
      }
      const [{ mergekitOf }, { writeText }] = await Promise.all([
        import("../run/export.js"),
        import("../checkpoint/files.js"),
      ]);
      const text = await mergekitOf(folder);
      if (to === undefined) process.stdout.write(text);
      else {
        await writeText(to, text);
        process.stderr.write(`written to ${to}\n`);
      }
    });
}
