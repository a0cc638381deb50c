import { Option, type Command } from "commander";
import { loadSettings } from "../config/load.js";
import { settings } from "../config/settings.js";
import { kebab } from "../spelling.js";
import { UserError } from "../errors.js";
import { progressPrinter } from "./progress.js";
import { fetchNamed } from "../inputs/fetch.js";
import { memoryText } from "../report/memory.js";

const shown = [
  "tasks",
  "family",
  "base",
  "experts",
  "residency",
  "blocks",
  "pack",
  "density",
  "memoryBudget",
  "microBatch",
  "batchSize",
  "maxLength",
  "backend",
] as const;

const examples = `
Examples:
  $ train-merge explain --tasks rte,cb,copa
  $ train-merge explain --tasks rte,cb --base base --experts experts --memory-budget 2GB
  $ train-merge explain --shape experiments/t0-3b --count 11 --batch-size 8 --memory-budget 4GB`;

export function addExplain(program: Command): void {
  const command = program
    .command("explain")
    .description(
      "say what a merge would take of memory, files and time wherever its task vectors live, " +
        "and which is chosen; loads nothing",
    );
  for (const key of shown)
    command.addOption(new Option(`--${kebab(key)} ${settings[key].argument}`, settings[key].help));
  command
    .option(
      "--shape <folder>",
      "a folder with config.json and safetensors files, or with config.json and header.json (a " +
        "safetensors header alone)",
    )
    .option("--count <n>", "how many experts of that shape")
    .option("--json", "print it as JSON")
    .addHelpText("after", examples)
    .action(
      async ({
        shape,
        count,
        json,
        ...options
      }: Record<string, unknown> & { shape?: string; count?: string; json?: boolean }) => {
        const experts = count === undefined ? undefined : Number(count);
        if (experts !== undefined && !(Number.isSafeInteger(experts) && experts > 0))
          throw new UserError(`--count ${count}: it must be a whole number above 0`);
        if (shape !== undefined && experts === undefined && options["tasks"] === undefined)
          throw new UserError("--shape needs --count, the number of experts");
        const chosen = await loadSettings(shape === undefined ? options : { tasks: "experts", ...options });
        const { explainMemory } = await import("../run/explain.js");
        const plan = await explainMemory({
          ...(await fetchNamed(chosen, progressPrinter(process.stderr))),
          shape,
          count: experts,
        });
        const {
          what,
          engine,
          step,
          budget,
          rates,
          predictions,
          chosen: taken,
          equation6,
          options: packed,
        } = plan;
        if (json) {
          const answer = { what, engine, step, budget, rates, predictions, chosen: taken, equation6 };
          process.stdout.write(`${JSON.stringify(answer, undefined, 2)}\n`);
          return;
        }
        const tokens = `${step.tokens} tokens a step (as if each text had ${step.length}), ${step.microBatch} a pass`;
        const title = `${what}; ${engine}; ${tokens}; task vectors as ${packed.packing}`;
        process.stdout.write(`${memoryText({ ...plan, rows: predictions, what: title })}\n`);
      },
    );
}
