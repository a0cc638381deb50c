import { titleOfMetric } from "../report/caption.js";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Option, type Command } from "commander";
import { above, belowOne, wholeNumber } from "../config/numbers.js";
import { loadSettings } from "../config/load.js";
import { stoppedCode, UsageError } from "../errors.js";
import type { FinetuneOptions } from "../finetune/start.js";
import { fileNames } from "../folder/files.js";
import { dataOf, fetchNamed, locateBase } from "../inputs/locate.js";
import { startCommand } from "./running.js";
import { checkedOption, printJson, settingOption, type Given } from "./options.js";

const finetuneHelp = `
Examples:
  $ train-merge finetune --task rte --data data/text --out experts/rte      every weight of the base that ships
  $ train-merge finetune --task cb --base org/base --data data/text --lora 8 --out experts/cb
  $ train-merge finetune --multitask --task rte,cb,copa --data data/text --out multitask one model of all of them
The same command with --resume goes on from where it stands.`;

/** Customary rates: fewer numbers take larger steps. */
const customaryRates = { full: 5e-5, lora: 5e-4, ia3: 3e-3 } as const;

interface FinetuneFlags extends Given {
  task?: string;
  tasks?: string;
  multitask?: boolean;
  lora?: number;
  ia3?: boolean;
  full?: boolean;
  alpha?: number;
  epochs: number;
  lr?: number;
  order?: number;
  weightDecay: number;
  batchSize: string;
  most?: number;
  out: string;
  resume?: boolean;
  json?: boolean;
}

/** What of a model is trained. @throws UsageError where two answers are given */
function trainedPart(options: FinetuneFlags): FinetuneOptions["how"] {
  const kinds = (["full", "lora", "ia3"] as const).filter((kind) => options[kind] !== undefined);
  if (kinds.length > 1) throw new UsageError(`--${kinds.join(" and --")}: choose one of them`);
  return kinds[0] ?? "full";
}

function scoreLine({
  task,
  accuracy,
  metric = "accuracy",
  loss,
}: {
  task: string;
  accuracy?: number | undefined;
  metric?: string | undefined;
  loss: number;
}): string {
  const right =
    accuracy === undefined
      ? ""
      : `${titleOfMetric(metric)} ${(100 * accuracy).toFixed(1)} % on the validation examples, `;
  return `${task}: ${right}loss ${loss.toFixed(4)}`;
}

async function runFinetune(options: FinetuneFlags): Promise<void> {
  const { lr, weightDecay, batchSize, out, epochs, most, order, resume = false, lora: rank = 8 } = options;
  const { weightDecay: _, lr: __, ...settings } = options;
  const asked = options.task ?? options.tasks;
  if (asked === undefined) throw new UsageError("name the task to learn: --task NAME");
  const chosen = await loadSettings({ ...settings, tasks: asked, batchSize, out });
  if (chosen.tasks.length > 1 && !options.multitask)
    throw new UsageError(`--task ${asked}: give one task, or --multitask for one model of all of them`);
  const how = trainedPart(options);
  const job = startCommand();
  job.training(true);
  const { finetune } = await import("../finetune/finetune.js");
  const { base, family, data } = await fetchNamed(chosen, job);
  const done = await finetune(
    {
      base: await locateBase({ base, family }),
      tasks: chosen.tasks,
      data: await dataOf({ data, base, family }),
      columns: chosen.columns,
      out,
      how,
      rank,
      alpha: options.alpha ?? 2 * rank,
      epochs,
      lr: lr ?? customaryRates[how],
      weightDecay,
      batchSize: chosen.batchSize,
      microBatch: chosen.microBatch,
      most,
      maxLength: chosen.maxLength,
      prompts: chosen.prompts,
      // What is customary is none of the run's identity.
      split: chosen.split === "files" ? undefined : chosen.split,
      chatTemplate: chosen.chatTemplate,
      seed: chosen.seed,
      order,
      backend: chosen.backend,
      resume,
      overwrite: chosen.overwrite,
    },
    job,
  );
  job.end();
  if (!done) {
    job.note(
      existsSync(join(out, fileNames.finetuneTensors))
        ? "stopped; the same command with --resume goes on from here"
        : "stopped before the first step: there is nothing to go on from",
    );
    process.exitCode = stoppedCode;
  } else if (options.json) printJson(done);
  else process.stdout.write(`${done.scores.map(scoreLine).join("\n")}\nwritten to ${done.out}\n`);
}

/** Options of the training itself. */
function addTraining(command: Command): void {
  command
    .option("--multitask", "one model of all the tasks, with a head each")
    .option("--full", "train every weight (the default)")
    .addOption(
      checkedOption(
        "--lora <rank>",
        "train LoRA of a rank beside every linear layer; a PEFT folder is written",
        wholeNumber(),
      ),
    )
    .addOption(checkedOption("--alpha <x>", "LoRA's alpha (default: twice the rank)", above(0)))
    .option("--ia3", "train (IA)³ vectors; a PEFT folder is written")
    .addOption(
      checkedOption("--epochs <n>", "times that all training examples are seen", wholeNumber()).default(3),
    )
    .addOption(
      checkedOption(
        "--lr <x>",
        `learning rate (default: ${customaryRates.full} for every weight, ${customaryRates.lora} for LoRA, ` +
          `${customaryRates.ia3} for (IA)³)`,
        above(0),
      ),
    )
    .addOption(checkedOption("--weight-decay <x>", "AdamW's decay of matrices", belowOne()).default(0.01))
    .option("--batch-size <n>", "examples a step", "16")
    .addOption(
      checkedOption(
        "--most <n>",
        "training examples that are used, drawn by the seed (default: all)",
        wholeNumber(),
      ),
    );
}

export function addFinetune(program: Command): void {
  const command = program
    .command("finetune")
    .description("fine-tune a base on a task's training file: an expert to merge; or on several at once")
    .option("--task <names>", "the task; several with --multitask")
    // What the other commands call it.
    .addOption(new Option("--tasks <names>").hideHelp())
    .requiredOption("--out <folder>", "where the expert is written")
    .addOption(settingOption("base", "the model to start from (default: the family's)"))
    .addOption(settingOption("family"))
    .addOption(settingOption("data"))
    .addOption(settingOption("datasets"))
    .addOption(settingOption("columns"));
  addTraining(command);
  command
    .addOption(settingOption("split"))
    .addOption(settingOption("maxLength"))
    .addOption(settingOption("prompts"))
    .addOption(settingOption("chatTemplate"))
    .addOption(settingOption("microBatch"))
    .addOption(settingOption("seed"))
    .addOption(
      checkedOption(
        "--order <n>",
        "draws the order of the examples alone (default: --seed draws it, the examples and a new head)",
        wholeNumber(0),
      ),
    )
    .addOption(settingOption("backend"))
    .addOption(settingOption("overwrite"))
    .option("--resume", "go on from the state in --out")
    .option("--json", "print the scores as JSON")
    .addHelpText("after", finetuneHelp)
    .action(runFinetune);
}
