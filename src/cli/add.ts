import type { Command } from "commander";
import { at } from "../at.js";
import { loadSettings } from "../config/load.js";
import { UsageError } from "../errors.js";
import { hubId } from "../hub/hub.js";
import { fetchNamed } from "../inputs/locate.js";
import { startCommand, mergeFiles, printOutcome } from "./running.js";
import { addSettings, type Given } from "./options.js";

const addHelp = `
Examples:
  $ train-merge add checkpoints/mini/experts/sst2 --to merged/mini-rte+cb+copa
  $ train-merge add org/boolq-expert --task boolq --to merged/mini-rte+cb+copa --base org/base --data data
  $ train-merge add my-model --task boolq --to merged/mini-rte+cb+copa --base base --data data --out merged/four`;

interface AddFlags extends Given {
  to: string;
  task?: string;
  resume?: boolean;
  json?: boolean;
}

async function runAdd(expert: string, options: AddFlags): Promise<void> {
  const { to, resume, json } = options;
  // Tasks come from the merge; a stand-in lets the other options be checked.
  const chosen = await loadSettings({ ...options, tasks: "all" });
  if (chosen.taskWeights) throw new UsageError("--task-weights is not for add");
  const job = startCommand();
  const { addToMerge } = await import("../run/add.js");
  const fetched = await fetchNamed({ ...chosen, experts: [expert] }, job);
  // A folder of the cache is called after a commit, its id after a model.
  const task = options.task ?? hubId(expert)?.name.split("/").at(-1);
  const settings = { ...fetched, experts: undefined, resume };
  const result = await addToMerge({ expert: at(fetched.experts, 0), to, task }, settings, job);
  job.end();
  const goOn = "the same command with --resume";
  printOutcome(result, { json, valPerTask: chosen.valPerTask, goOn, files: mergeFiles }, job.note);
}

export function addAdd(program: Command): void {
  const command = program
    .command("add <expert>")
    .description(
      "add an expert to a finished merge: the merge counts as one model, and only two " +
        "coefficients a layer are trained",
    );
  command
    .requiredOption("--to <folder>", "the finished merge")
    .option("--task <name>", "the expert's task (default: its folder's name)");
  addSettings(command, ["tasks", "experts"]);
  command
    .option("--resume", "go on from the state in --out")
    .option("--json", "print the results as JSON on stdout")
    .addHelpText("after", addHelp)
    .action(runAdd);
}
