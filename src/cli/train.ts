import type { Command } from "commander";
import { loadSettings } from "../config/load.js";
import { fetchNamed } from "../inputs/locate.js";
import { startCommand, mergeFiles, printOutcome } from "./running.js";
import { addSettings, type Given } from "./options.js";
import { watchHelp, watchOption, watchWhere } from "./watch.js";

const trainHelp = `
Examples:
  $ train-merge --tasks rte,cb,copa                       the synthetic family that ships
  $ train-merge --tasks rte,cb,copa --family minilm --data data/text
  $ train-merge --tasks rte,cb --base base --experts rte=a/rte cb=b/cb --data data
  $ train-merge --config merge.yaml --seed 1 --json
  $ train-merge --tasks rte,cb,copa --resume              go on after Ctrl-C`;

interface TrainFlags extends Given {
  config?: string;
  resume?: boolean;
  tensorboard?: boolean;
  watch?: boolean;
  json?: boolean;
}

async function runTrain(options: TrainFlags): Promise<void> {
  const { resume, tensorboard, json, watch } = options;
  const chosen = await loadSettings(options, options.config);
  const job = startCommand();
  const { trainMerge } = await import("../run/merge.js");
  const result = await trainMerge(
    { ...(await fetchNamed(chosen, job)), resume, tensorboard },
    {
      ...job,
      begun: watchWhere(watch, job.note),
    },
  );
  job.end();
  const goOn = "the same command with --resume";
  printOutcome(result, { json, valPerTask: chosen.valPerTask, goOn, files: mergeFiles }, job.note);
}

export function addTrain(program: Command): void {
  const command = program
    .command("train", { isDefault: true })
    .description("merge experts by training one coefficient for each layer and expert (the default command)");
  addSettings(command);
  command
    .option("--config <file>", "a YAML file of the settings above; options win over it")
    .option("--resume", "go on from the state in --out")
    .option("--tensorboard", "also write an event file for TensorBoard, in tensorboard/")
    .option(watchOption, watchHelp)
    .option("--json", "print the results as JSON on stdout")
    .addHelpText("after", trainHelp)
    .action(runTrain);
}
