import { Option, type Command } from "commander";
import { loadSettings } from "../config/load.js";
import { wholeNumber } from "../config/numbers.js";
import { settings } from "../config/settings.js";
import type { GeneratedText } from "../evaluate/generations.js";
import { fetchNamed } from "../inputs/locate.js";
import { resultTable, toText } from "../report/table.js";
import { startCommand } from "./running.js";
import { checkedOption, printJson, settingOption, type Given } from "./options.js";

function generatedText({ task, prompt, said, right }: GeneratedText): string {
  const given = prompt.replaceAll("\n", "\n         ");
  return `\n${task}\n  given  ${given}\n  says   ${said}\n  right  ${right.join(" | ")}\n`;
}

interface EvaluateFlags extends Given {
  show?: number;
  json?: boolean;
}

async function runEvaluate(folder: string, { show, json, ...options }: EvaluateFlags): Promise<void> {
  // The tasks a folder holds are not known yet; any name stands in, so that the other options are checked.
  const chosen = await loadSettings({ tasks: "all", ...options });
  const { readModel, startFor } = await import("../inputs/prepare.js");
  const { evaluateFolder, homeOf } = await import("../run/evaluate.js");
  const { base } = await fetchNamed({ base: chosen.base }, startCommand());
  await startFor((await readModel(await homeOf({ folder, base }))).model, chosen.backend);
  // What the user did not give is as in the run that wrote the folder.
  const { tasks, seed, maxLength, valPerTask } = chosen;
  const given = Object.entries({ tasks, seed, maxLength, valPerTask }).filter(([key]) => key in options);
  const { rows, synthetic, said } = await evaluateFolder({
    folder,
    base,
    prompts: chosen.prompts,
    data: chosen.data,
    ...Object.fromEntries(given),
    show,
  });
  if (json) printJson({ folder, synthetic, rows, ...(show !== undefined && { said }) });
  else {
    const kind = synthetic ? "SYNTHETIC data; " : "";
    const generated = said.map(generatedText).join("");
    process.stdout.write(`${kind}test accuracy in %\n${toText(resultTable(rows))}\n${generated}`);
  }
}

export function addEvaluate(program: Command): void {
  program
    .command("evaluate <folder>")
    .description(
      "measure a merged model from its written files, or any other model on the task that it answers",
    )
    .addOption(
      new Option("--tasks <names>", "tasks, separated by commas (default: every one it has a head for)"),
    )
    .addOption(
      settingOption("base", "the model that an adapter belongs to, or whose tokenizer an expert has"),
    )
    .addOption(settingOption("data"))
    .addOption(settingOption("prompts"))
    .addOption(
      settingOption("maxLength", `${settings.maxLength.help} (default: as the run that wrote the folder)`),
    )
    .addOption(
      settingOption(
        "valPerTask",
        "validation examples a task: a task with a single file is tested on the rest (default: as the run)",
      ),
    )
    .addOption(settingOption("seed", "draws those examples (default: as the run)"))
    .addOption(settingOption("backend", `${settings.backend.help} (default: auto)`))
    .addOption(
      checkedOption(
        "--show <n>",
        "show what a language model generates for the first n test examples of every task",
        wholeNumber(),
      ),
    )
    .option("--json", "print the rows as JSON")
    .addHelpText(
      "after",
      "\nExamples:\n  $ train-merge evaluate merged/mini-rte+cb+copa --tasks rte,cb\n" +
        "  $ train-merge evaluate experts/rte --tasks rte --data data --base base",
    )
    .action(runEvaluate);
}
