import type { Command } from "commander";
import { loadSettings } from "../config/load.js";
import { UserError } from "../errors.js";
import { hubId } from "../hub/hub.js";
import { fetchNamed } from "../inputs/fetch.js";
import { addSettings } from "./options.js";
import { printOutcome } from "./outcome.js";
import { progressPrinter } from "./progress.js";
import { stopOnSignal } from "./signals.js";

const examples = `
Examples:
  $ train-merge add checkpoints/mini/experts/sst2 --to merged/mini-rte+cb+copa
  $ train-merge add org/boolq-expert --task boolq --to merged/mini-rte+cb+copa --base org/base --data data
  $ train-merge add my-model --task boolq --to merged/mini-rte+cb+copa --base base --data data --out merged/four`;

export function addAdd(program: Command): void {
  const command = program
    .command("add <expert>")
    .description(
      "add an expert to a finished merge, which counts as one model: two coefficients a layer " +
        "are trained, nothing else",
    );
  command
    .requiredOption("--to <folder>", "the finished merge")
    .option("--task <name>", "the expert's task (default: its folder's name)");
  addSettings(command, ["tasks", "experts"]);
  command
    .option("--resume", "go on from the state in --out")
    .option("--json", "print the results as JSON on stdout")
    .addHelpText("after", examples)
    .action(
      async (
        expert: string,
        options: Record<string, unknown> & { to: string; task?: string; resume?: boolean; json?: boolean },
      ) => {
        // Tasks come from the merge; a stand-in lets the other options be checked.
        const chosen = await loadSettings({ ...options, tasks: "all" });
        if (chosen.taskWeights) throw new UserError("--task-weights is not for add");
        const printer = progressPrinter(process.stderr);
        const signals = stopOnSignal(printer.note);
        const { addExpert } = await import("../run/add.js");
        const {
          experts: [folder],
          ...fetched
        } = await fetchNamed({ ...chosen, experts: [expert] }, printer);
        // A folder of the cache is called after a commit, its id after a model.
        const task = options.task ?? hubId(expert)?.name.split("/").at(-1);
        const result = await addExpert(
          folder,
          options.to,
          task,
          { ...fetched, experts: undefined, resume: options.resume },
          {
            ...printer,
            stopping: signals.requested,
            step(record, tasks, steps) {
              signals.training(record.step < steps);
              printer.step(record, tasks, steps);
            },
          },
        );
        printer.end();
        printOutcome(
          result,
          {
            json: options.json,
            valPerTask: chosen.valPerTask,
            goOn: "the same command with --resume",
            files: "README.md, report.html, coefficients.png, results.json",
          },
          printer.note,
        );
      },
    );
}
