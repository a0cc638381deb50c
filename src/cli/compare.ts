import type { Command } from "commander";
import { loadSettings, readSettingsFile } from "../config/load.js";
import { wholeNumber, commaSeparated } from "../config/numbers.js";
import { trainedPresets } from "../config/trained.js";
import { stoppedCode } from "../errors.js";
import { fetchNamed } from "../inputs/locate.js";
import { methods } from "../methods/index.js";
import { comparisonTable } from "../report/comparison.js";
import { withoutMarks } from "../report/rows.js";
import { toText } from "../report/table.js";
import { tableCaption } from "../report/caption.js";
import { startCommand } from "./running.js";
import { addSettings, checkedOption, givenSettings, printJson, whereabouts, type Given } from "./options.js";
import { watchHelp, watchOption, watchWhere } from "./watch.js";

const compareHelp = `
Examples:
  $ train-merge compare --tasks rte,cb,copa --methods average,ties,dare,supermerge
  $ train-merge compare --tasks rte,cb,copa --methods all
  $ train-merge compare --config merge.yaml --methods average,supermerge   what init found, two methods
The same command goes on after Ctrl-C: methods that are done are not run again.`;

interface CompareFlags extends Given {
  config?: string;
  methods: string;
  search: boolean;
  keep?: boolean;
  threads?: number;
  watch?: boolean;
  json?: boolean;
}

async function runCompare(options: CompareFlags): Promise<void> {
  const { search, keep = false, threads, json, watch } = options;
  const { config } = options;
  const chosen = await loadSettings(options, config);
  const inFile = config === undefined ? {} : await readSettingsFile(config);
  const job = startCommand();
  job.training(true);
  const { runComparison } = await import("../compare/compare.js");
  const made = await runComparison(
    {
      ...(await fetchNamed(chosen, job)),
      methods: options.methods === "all" ? "all" : commaSeparated(options.methods),
      search,
      keep,
      threads,
      given: givenSettings(chosen, (key) => options[key] !== undefined || key in inFile, whereabouts),
    },
    { ...job, begun: watchWhere(watch, job.note) },
  );
  job.end();
  if (!made.finished) {
    job.note(`stopped; the same command goes on from ${made.out}`);
    process.exitCode = stoppedCode;
  } else if (json) printJson({ ...made, rows: withoutMarks(made.rows) });
  else {
    const caption = tableCaption(made.rows, made.synthetic, chosen.valPerTask);
    const table = toText(comparisonTable(made.rows, made.times));
    process.stdout.write(
      `\n${caption}\n${table}\n\nwritten to ${made.out} (report.html, table.md, results.json)\n`,
    );
  }
}

export function addCompare(program: Command): void {
  const command = program
    .command("compare")
    .description(
      "merge the same experts with many methods and put them in one table; each method's " +
        "parameters are searched on the validation examples",
    );
  const names = [...methods.map(({ name }) => name), ...Object.keys(trainedPresets)].join(", ");
  command.option("--methods <names>", `all, or some of ${names}`, "all");
  addSettings(command, ["method", "variant", "treat", "adaptOn", "loss"]);
  command
    .option(
      "--config <file>",
      "a YAML file of the settings of `train-merge train`, as init writes it; options win over it",
    )
    .option("--no-search", "take each method's customary defaults")
    .option("--keep", "keep every method's merged model, in models/<method>")
    .addOption(
      checkedOption("--threads <n>", "threads that merge (default: the machine's cores)", wholeNumber(0)),
    )
    .option(watchOption, watchHelp)
    .option("--json", "print the results as JSON on stdout")
    .addHelpText("after", compareHelp)
    .action(runCompare);
}
