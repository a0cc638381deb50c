import { existsSync } from "node:fs";
import { join } from "node:path";
import { Option, type Command } from "commander";
import { loadSettings } from "../config/load.js";
import { settings } from "../config/settings.js";
import { UserError, stoppedCode } from "../errors.js";
import { fetchNamed } from "../inputs/fetch.js";
import { locateBase, shippedData } from "../inputs/locate.js";
import { positive, wholeFromZero } from "./options.js";
import { progressPrinter } from "./progress.js";
import { stopOnSignal } from "./signals.js";

const examples = `
Examples:
  $ train-merge finetune --task rte --data data/text --out experts/rte      every weight of the base that ships
  $ train-merge finetune --task cb --base org/base --data data/text --lora 8 --out experts/cb
  $ train-merge finetune --multitask --task rte,cb,copa --data data/text --out multitask one model of all of them
The same command with --resume goes on from the last whole epoch.`;

/** Customary rates: fewer numbers take larger steps. */
const rates = { full: 5e-5, lora: 5e-4, ia3: 3e-3 } as const;

interface Given {
  task: string;
  multitask?: boolean;
  lora?: string;
  ia3?: boolean;
  full?: boolean;
  alpha?: string;
  epochs: string;
  lr?: string;
  order?: string;
  weightDecay: string;
  batchSize: string;
  most?: string;
  out: string;
  resume?: boolean;
  json?: boolean;
}

export function addFinetune(program: Command): void {
  program
    .command("finetune")
    .description("fine-tune a base on a task's training file: an expert to merge; or on several at once")
    .requiredOption("--task <names>", "the task; several with --multitask")
    .requiredOption("--out <folder>", "where the expert is written")
    .addOption(new Option("--base <folder>", "the model to start from (default: the family's)"))
    .addOption(new Option("--family <name>", settings.family.help))
    .addOption(new Option("--data <folder>", settings.data.help))
    .option("--multitask", "one model of all the tasks, with a head each")
    .option("--full", "train every weight (the default)")
    .option("--lora <rank>", "train LoRA of a rank beside every linear layer; a PEFT folder is written")
    .option("--alpha <x>", "LoRA's alpha (default: twice the rank)")
    .option("--ia3", "train (IA)³ vectors; a PEFT folder is written")
    .option("--epochs <n>", "times that all training examples are seen", "3")
    .option(
      "--lr <x>",
      `learning rate (default: ${rates.full} for every weight, ${rates.lora} for LoRA, ${rates.ia3} for (IA)³)`,
    )
    .option("--weight-decay <x>", "AdamW's decay of matrices", "0.01")
    .option("--batch-size <n>", "examples a step", "16")
    .option("--most <n>", "training examples that are used, drawn by the seed (default: all)")
    .addOption(new Option("--max-length <n>", settings.maxLength.help))
    .addOption(new Option("--prompts <folder>", settings.prompts.help))
    .addOption(new Option("--micro-batch <tokens>", settings.microBatch.help))
    .addOption(new Option("--seed <n>", settings.seed.help))
    .option(
      "--order <n>",
      "draws the order of the examples alone (default: --seed draws it, the examples and a new head)",
    )
    .addOption(new Option("--backend <name>", `${settings.backend.help} (default: auto)`))
    .option("--resume", "go on from the last whole epoch in --out")
    .option("--json", "print the scores as JSON")
    .addHelpText("after", examples)
    .action(async ({ lr, weightDecay, batchSize, ...options }: Given & Record<string, unknown>) => {
      const chosen = await loadSettings({ ...options, tasks: options.task, batchSize, out: options.out });
      if (chosen.tasks.length > 1 && !options.multitask)
        throw new UserError(
          `--task ${options.task}: give one task, or --multitask for one model of all of them`,
        );
      const kinds = (["full", "lora", "ia3"] as const).filter((kind) => options[kind] !== undefined);
      if (kinds.length > 1) throw new UserError(`--${kinds.join(" and --")}: choose one of them`);
      const how = kinds[0] ?? "full";
      const rank = options.lora === undefined ? 8 : positive("lora", options.lora, true);
      const decay = Number(weightDecay);
      if (!(decay >= 0 && decay < 1))
        throw new UserError(`--weight-decay ${weightDecay}: it must be from 0 to below 1`);
      const printer = progressPrinter(process.stderr);
      const signals = stopOnSignal(printer.note);
      signals.training(true);
      const { finetune } = await import("../finetune/finetune.js");
      const { base, family } = await fetchNamed(chosen, printer);
      const done = await finetune(
        {
          base: await locateBase({ base, family }),
          tasks: chosen.tasks,
          data: chosen.data ?? shippedData,
          out: options.out,
          how,
          rank,
          alpha: options.alpha === undefined ? 2 * rank : positive("alpha", options.alpha, false),
          epochs: positive("epochs", options.epochs, true),
          lr: lr === undefined ? rates[how] : positive("lr", lr, false),
          weightDecay: decay,
          batchSize: chosen.batchSize,
          microBatch: chosen.microBatch,
          most: options.most === undefined ? undefined : positive("most", options.most, true),
          maxLength: chosen.maxLength,
          prompts: chosen.prompts,
          seed: chosen.seed,
          order: options.order === undefined ? undefined : wholeFromZero("order", options.order),
          backend: chosen.backend,
          resume: options.resume ?? false,
        },
        { ...printer, stopping: signals.requested },
      );
      printer.end();
      if (!done) {
        printer.note(
          existsSync(join(options.out, "finetune.json"))
            ? "stopped; the same command with --resume goes on from the last whole epoch"
            : "stopped before the first epoch was whole: there is nothing to go on from",
        );
        process.exitCode = stoppedCode;
      } else if (options.json) process.stdout.write(`${JSON.stringify(done, undefined, 2)}\n`);
      else {
        const lines = done.scores.map(({ task, accuracy, loss }) => {
          const right =
            accuracy === undefined ? "" : `${(100 * accuracy).toFixed(1)} % of the validation examples, `;
          return `${task}: ${right}loss ${loss.toFixed(4)}`;
        });
        process.stdout.write(`${lines.join("\n")}\nwritten to ${done.out}\n`);
      }
    });
}
