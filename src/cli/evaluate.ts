import { Option, type Command } from "commander";
import { UserError } from "../errors.js";
import type { GeneratedText } from "../evaluate/generations.js";
import { loadSettings } from "../config/load.js";
import { settings } from "../config/settings.js";
import { progressPrinter } from "./progress.js";
import { fetchNamed } from "../inputs/fetch.js";
import { resultTable, toText } from "../report/table.js";

const sayingText = ({ task, prompt, said, right }: GeneratedText): string =>
  `\n${task}\n  given  ${prompt.replaceAll("\n", "\n         ")}\n  says   ${said}\n  right  ${right.join(" | ")}\n`;

export function addEvaluate(program: Command): void {
  program
    .command("evaluate <folder>")
    .description("measure a merged model from its written files")
    .addOption(
      new Option("--tasks <names>", "tasks, separated by commas (default: every one it has a head for)"),
    )
    .addOption(new Option("--base <folder>", "the model that an adapter belongs to"))
    .addOption(new Option("--data <folder>", settings.data.help))
    .addOption(new Option("--prompts <folder>", settings.prompts.help))
    .addOption(
      new Option(
        "--max-length <n>",
        `${settings.maxLength.help} (default: as the run that wrote the folder)`,
      ),
    )
    .addOption(
      new Option(
        "--val-per-task <n>",
        "what a task with one file only has left over is its test set (default: as the run)",
      ),
    )
    .addOption(new Option("--seed <n>", "the same cut depends on it (default: as the run)"))
    .addOption(new Option("--backend <name>", `${settings.backend.help} (default: auto)`))
    .option("--show <n>", "show what a language model says to the first n test examples of every task")
    .option("--json", "print the rows as JSON")
    .addHelpText("after", "\nExample:\n  $ train-merge evaluate merged/mini-rte+cb+copa --tasks rte,cb")
    .action(
      async (
        folder: string,
        { show, ...options }: Record<string, unknown> & { json?: boolean; show?: string },
      ) => {
        if (show !== undefined && !/^[1-9]\d{0,5}$/.test(show))
          throw new UserError(`--show ${show}: give a number of examples, from 1 on`);
        // The tasks a folder holds are not known yet; any name stands in, so that the other options are checked.
        const chosen = await loadSettings({ tasks: "all", ...options });
        const [{ readModel, startFor }, { evaluateFolder, homeOf }] = await Promise.all([
          import("../inputs/prepare.js"),
          import("../run/evaluate.js"),
        ]);
        const { base } = await fetchNamed({ base: chosen.base }, progressPrinter(process.stderr));
        await startFor((await readModel(homeOf({ folder, base }))).model, chosen.backend);
        const given = <K extends "tasks" | "seed" | "maxLength" | "valPerTask">(key: K) =>
          options[key] === undefined ? undefined : chosen[key];
        const { rows, synthetic, said } = await evaluateFolder({
          folder,
          base,
          prompts: chosen.prompts,
          data: chosen.data,
          tasks: given("tasks"),
          seed: given("seed"),
          maxLength: given("maxLength"),
          valPerTask: given("valPerTask"),
          ...(show !== undefined && { show: Number(show) }),
        });
        if (options.json)
          process.stdout.write(
            `${JSON.stringify({ folder, synthetic, rows, ...(show !== undefined && { said }) }, undefined, 2)}\n`,
          );
        else
          process.stdout.write(
            `${synthetic ? "SYNTHETIC data; " : ""}test accuracy in ` +
              `%\n${toText(resultTable(rows))}\n${said.map(sayingText).join("")}`,
          );
      },
    );
}
