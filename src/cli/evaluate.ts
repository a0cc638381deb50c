import { Option, type Command } from "commander";
import { writeText } from "../checkpoint/files.js";
import { loadSettings, readSettingsFile } from "../config/load.js";
import { wholeNumber } from "../config/numbers.js";
import { settings } from "../config/settings.js";
import type { GeneratedText } from "../evaluate/generations.js";
import type { Evaluation } from "../run/evaluate.js";
import { fetchNamed } from "../inputs/locate.js";
import type { ClassScore } from "../evaluate/shown.js";
import { withoutMarks } from "../report/rows.js";
import { resultTable, toText } from "../report/table.js";
import { furtherMetrics, percent, scoresText } from "../report/caption.js";
import { startCommand } from "./running.js";
import { checkedOption, printJson, settingOption, type Given } from "./options.js";

function generatedText({ task, prompt, said, right }: GeneratedText): string {
  const given = prompt.replaceAll("\n", "\n         ");
  return `\n${task}\n  given  ${given}\n  says   ${said}\n  right  ${right.join(" | ")}\n`;
}

/** A table fits where there are few classes; all of them are in --json. */
const mostClasses = 20;

function classesText(task: string, classes: readonly ClassScore[]): string {
  if (classes.length === 0 || classes.length > mostClasses) return "";
  const body = classes.map(({ name, precision, recall, f1, n }) => [
    name,
    ...[precision, recall, f1].map(percent),
    String(n),
  ]);
  return `\n${toText({ head: [task, "precision", "recall", "F1", "n"], body })}\n`;
}

/** A line an example: its task, its place in the test set, and the answer. */
const answerLines = (answers: Evaluation["answers"]): string =>
  Object.entries(answers)
    .flatMap(([task, each]) => each.map((answer, n) => `${JSON.stringify({ task, n, answer })}\n`))
    .join("");

interface EvaluateFlags extends Given {
  answers?: string;
  config?: string;
  show?: number;
  json?: boolean;
}

async function runEvaluate(
  folder: string,
  { show, json, config, answers: file, ...options }: EvaluateFlags,
): Promise<void> {
  // The tasks a folder holds are not known yet; any name stands in, so that the other options are checked.
  const inFile = config === undefined ? {} : await readSettingsFile(config);
  const chosen = await loadSettings({ ...("tasks" in inFile ? {} : { tasks: "all" }), ...options }, config);
  const { readModel, startFor } = await import("../inputs/prepare.js");
  const { evaluateFolder, homeOf } = await import("../run/evaluate.js");
  const { base } = await fetchNamed({ base: chosen.base }, startCommand());
  await startFor((await readModel(await homeOf({ folder, base }))).model, chosen.backend);
  // What the user did not give is as in the run that wrote the folder.
  const { tasks, seed, maxLength, valPerTask, testPerTask, split, score } = chosen;
  const given = Object.entries({ tasks, seed, maxLength, valPerTask, testPerTask, split, score }).filter(
    ([key]) => key in options || key in inFile,
  );
  const { rows, synthetic, said, classes, answers } = await evaluateFolder({
    folder,
    base,
    prompts: chosen.prompts,
    chatTemplate: chosen.chatTemplate,
    data: chosen.data,
    ...Object.fromEntries(given),
    columns: chosen.columns,
    show,
  });
  if (file !== undefined) await writeText(file, answerLines(answers));
  if (json) {
    printJson({ folder, synthetic, rows: withoutMarks(rows), classes, ...(show !== undefined && { said }) });
    return;
  }
  const parts = [
    `${scoresText(rows, synthetic)}\n${toText(resultTable(rows))}\n`,
    ...furtherMetrics(rows).map((line) => `${line}\n`),
    ...Object.entries(classes).map(([task, each]) => classesText(task, each)),
    ...said.map(generatedText),
  ];
  process.stdout.write(parts.join(""));
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
    .addOption(settingOption("columns", `${settings.columns.help} (default: as the run)`))
    .addOption(settingOption("prompts"))
    .addOption(settingOption("chatTemplate"))
    .addOption(
      settingOption("maxLength", `${settings.maxLength.help} (default: as the run that wrote the folder)`),
    )
    .addOption(
      settingOption(
        "valPerTask",
        "validation examples a task: a task with a single file is tested on the rest (default: as the run)",
      ),
    )
    .addOption(settingOption("testPerTask", "test examples a task, drawn by the seed (default: as the run)"))
    .addOption(settingOption("split", `${settings.split.help} (default: as the run)`))
    .addOption(settingOption("score", `${settings.score.help} (default: as the run)`))
    .addOption(settingOption("seed", "draws those examples (default: as the run)"))
    .addOption(settingOption("backend", `${settings.backend.help} (default: auto)`))
    .addOption(
      checkedOption(
        "--show <n>",
        "show n test examples of every task that are answered wrongly; of a language model, what it generates for " +
          "the first n",
        wholeNumber(),
      ),
    )
    .option("--config <file>", "a YAML file of the settings of `train-merge train`; options win over it")
    .option("--answers <file>", "write what is said to every test example, a line of JSON each")
    .option("--json", "print the rows as JSON")
    .addHelpText(
      "after",
      "\nExamples:\n  $ train-merge evaluate merged/mini-rte+cb+copa --tasks rte,cb\n" +
        "  $ train-merge evaluate experts/rte --tasks rte --data data --base base",
    )
    .action(runEvaluate);
}
