import type { Command } from "commander";
import { loadSettings } from "../config/load.js";
import { wholeNumber } from "../config/numbers.js";
import { fetchNamed, shippedData } from "../inputs/locate.js";
import type { ShownPrompts, ShownTemplate } from "../run/prompts.js";
import { checkedOption, printJson, settingOption, type Given } from "./options.js";
import { startCommand } from "./running.js";

interface PromptFlags extends Given {
  config?: string;
  show: number;
  json?: boolean;
}

const indented = (text: string): string => text.replaceAll(/^/gm, "    ");

/** A template's words, and its answers: the right one is marked. */
function templateText({ name, prompt, answers = [], answer }: ShownTemplate): string {
  if (prompt === undefined) return `  ${name}: leaves this example out\n`;
  const listed = answers.map((one) => `    ${one === answer ? "→" : " "} ${one}\n`).join("");
  return `  ${name}\n${indented(prompt)}\n${listed}`;
}

function shownText({ task, data, prompts, examples }: ShownPrompts): string {
  const count = examples[0]?.length ?? 0;
  const head = `${task}: ${count} templates of ${prompts}, examples of ${data} (→ marks the right answer)\n`;
  const each = examples.map(
    (templates, i) => `\nexample ${i + 1}\n${templates.map(templateText).join("\n")}`,
  );
  return head + each.join("");
}

export function addPrompts(program: Command): void {
  program
    .command("prompts <task>")
    .description(
      "show what the prompt templates make of a task's first examples: prompt, answers, right answer",
    )
    .addOption(settingOption("data"))
    .addOption(settingOption("datasets"))
    .addOption(settingOption("columns"))
    .addOption(settingOption("prompts"))
    .option("--config <file>", "a YAML file of the settings of `train-merge train`; options win over it")
    .addOption(checkedOption("--show <n>", "examples that are shown", wholeNumber()).default(1))
    .option("--json", "print them as JSON")
    .addHelpText(
      "after",
      "\nExamples:\n  $ train-merge prompts rte\n" +
        "  $ train-merge prompts copa --data data/text --prompts promptsource/templates --show 3",
    )
    .action(async (task: string, { show, json, config, ...options }: PromptFlags) => {
      const chosen = await loadSettings({ ...options, tasks: task }, config);
      // The models that a settings file names are not needed.
      const { data: given, datasets } = chosen;
      const { data = shippedData } = await fetchNamed({ data: given, datasets }, startCommand());
      const { showPrompts } = await import("../run/prompts.js");
      const { prompts, columns } = chosen;
      const shown = await showPrompts({ task, data, prompts, columns, show });
      if (json) printJson(shown);
      else process.stdout.write(shownText(shown));
    });
}
