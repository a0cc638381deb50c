import type { Command } from "commander";
import { loadSettings } from "../config/load.js";
import { wholeNumber } from "../config/numbers.js";
import { UsageError } from "../errors.js";
import { fetchNamed } from "../inputs/locate.js";
import { memoryText } from "../report/memory.js";
import { startCommand } from "./running.js";
import { addSettings, checkedOption, printJson, type Given } from "./options.js";

const explainHelp = `
Examples:
  $ train-merge explain --tasks rte,cb,copa
  $ train-merge explain --tasks rte,cb --base base --experts experts --memory-budget 2GB
  $ train-merge explain --config merge.yaml
  $ train-merge explain --shape experiments/t0-3b --count 11 --batch-size 8 --memory-budget 4GB`;

interface ExplainFlags extends Given {
  config?: string;
  shape?: string;
  count?: number;
  json?: boolean;
}

async function runExplain({ shape, count, json, config, ...options }: ExplainFlags): Promise<void> {
  if (shape !== undefined && count === undefined && options["tasks"] === undefined && config === undefined)
    throw new UsageError("--shape needs --count, the number of experts");
  const asked = shape === undefined || config !== undefined ? options : { tasks: "experts", ...options };
  const chosen = await loadSettings(asked, config);
  const { explainMemory } = await import("../run/explain.js");
  // A shape stands for the models: nothing is fetched.
  const named = shape === undefined ? await fetchNamed(chosen, startCommand()) : chosen;
  const plan = await explainMemory({ ...named, shape, count });
  const { what, engine, step, budget, rates, predictions, equation6 } = plan;
  if (json) {
    printJson({ what, engine, step, budget, rates, predictions, chosen: plan.chosen, equation6 });
    return;
  }
  const tokens = `${step.tokens} tokens a step (as if each text had ${step.length}), ${step.microBatch} a pass`;
  const title = `${what}; ${engine}; ${tokens}; task vectors as ${plan.options.packing}`;
  process.stdout.write(`${memoryText({ ...plan, rows: predictions, what: title })}\n`);
}

export function addExplain(program: Command): void {
  const command = program
    .command("explain")
    .description(
      "say how much memory, disk and time a merge would take with its task vectors on the device, in " +
        "host memory or on disk, and which of them is chosen; loads no weights",
    );
  // Every setting of a merge: a command line that merges is explained as it stands.
  addSettings(command);
  command
    .option("--config <file>", "a YAML file of the settings of `train-merge train`; options win over it")
    .option(
      "--shape <folder>",
      "a folder with config.json and safetensors files, or with config.json and header.json (a " +
        "safetensors header alone)",
    )
    .addOption(checkedOption("--count <n>", "how many experts of that shape", wholeNumber()))
    .option("--json", "print it as JSON")
    .addHelpText("after", explainHelp)
    .action(runExplain);
}
