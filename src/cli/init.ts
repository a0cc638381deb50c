import { existsSync } from "node:fs";
import { Option, type Command } from "commander";
import { writeText } from "../checkpoint/files.js";
import { loadSettings } from "../config/load.js";
import { UserError } from "../errors.js";
import { fetchNamed } from "../inputs/locate.js";
import { settingOption, type Given } from "./options.js";
import { startCommand } from "./running.js";

interface InitFlags extends Given {
  to: string;
  tasks?: string;
  overwrite?: boolean;
}

async function runInit({ to, overwrite = false, ...options }: InitFlags): Promise<void> {
  if (existsSync(to) && !overwrite)
    throw new UserError(`--to ${to}: the file is there already; choose another, or --overwrite`);
  // The tasks may be what is looked for; any name stands in, so that the other options are checked.
  const chosen = await loadSettings({ tasks: "all", ...options });
  const { configText } = await import("../run/init.js");
  const { base, experts, family, data, columns } = await fetchNamed(chosen, startCommand());
  const tasks = options.tasks === undefined ? undefined : chosen.tasks;
  const text = await configText({ base, experts, family, data, columns, tasks });
  await writeText(to, text);
  process.stdout.write(`${text}\nwritten to ${to}: train-merge --config ${to}\n`);
}

export function addInit(program: Command): void {
  program
    .command("init")
    .description("look at experts and data, say what each task is, and write a config to merge by")
    .addOption(new Option("--tasks <names>", "tasks, separated by commas (default: every expert with data)"))
    .addOption(settingOption("base"))
    .addOption(settingOption("experts"))
    .addOption(settingOption("family"))
    .addOption(settingOption("data"))
    .addOption(settingOption("datasets"))
    .addOption(settingOption("columns"))
    .option("--to <file>", "where to write", "merge.yaml")
    .option("--overwrite", "write over a file that is there")
    .addHelpText(
      "after",
      "\nExample:\n  $ train-merge init --base base --experts mood=a topic=b --data data\n  $ train-merge --config " +
        "merge.yaml",
    )
    .action(runInit);
}
