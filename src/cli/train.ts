import type { Command } from "commander";
import { loadSettings } from "../config/load.js";
import { fetchNamed } from "../inputs/fetch.js";
import { addSettings } from "./options.js";
import { printOutcome } from "./outcome.js";
import { progressPrinter } from "./progress.js";
import { stopOnSignal } from "./signals.js";

const examples = `
Examples:
  $ train-merge --tasks rte,cb,copa                       the synthetic family that ships
  $ train-merge --tasks rte,cb,copa --family minilm --data data/text
  $ train-merge --tasks rte,cb --base base --experts rte=a/rte cb=b/cb --data data
  $ train-merge --config merge.yaml --seed 1 --json
  $ train-merge --tasks rte,cb,copa --resume              go on after Ctrl-C`;

export function addTrain(program: Command): void {
  const command = program
    .command("train", { isDefault: true })
    .description("merge experts by training one coefficient for each layer and expert (the default command)");
  addSettings(command);
  command
    .option("--config <file>", "a YAML file of the settings above; options win over it")
    .option("--resume", "go on from the state in --out")
    .option("--tensorboard", "write TensorBoard's event file too, in tensorboard/")
    .option("--json", "print the results as JSON on stdout")
    .addHelpText("after", examples)
    .action(
      async (
        options: Record<string, unknown> & {
          config?: string;
          resume?: boolean;
          tensorboard?: boolean;
          json?: boolean;
        },
      ) => {
        const chosen = await loadSettings(options, options.config);
        const printer = progressPrinter(process.stderr);
        const signals = stopOnSignal(printer.note);
        const { mergeByTraining } = await import("../run/merge.js");
        const result = await mergeByTraining(
          {
            ...(await fetchNamed(chosen, printer)),
            resume: options.resume,
            tensorboard: options.tensorboard,
          },
          {
            ...printer,
            step(record, tasks, steps) {
              signals.training(record.step < steps);
              printer.step(record, tasks, steps);
            },
            stopping: signals.requested,
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
