import type { Command } from "commander";
import { loadSettings } from "../config/load.js";
import { settings } from "../config/settings.js";
import { UserError, stoppedCode } from "../errors.js";
import { comparisonTable } from "../report/comparison.js";
import { tableCaption, toText } from "../report/table.js";
import { trained } from "../config/trained.js";
import { methods } from "../methods/index.js";
import { fetchNamed } from "../inputs/fetch.js";
import { addSettings } from "./options.js";
import { progressPrinter } from "./progress.js";
import { stopOnSignal } from "./signals.js";

const examples = `
Examples:
  $ train-merge compare --tasks rte,cb,copa --methods average,ties,dare,supermerge
  $ train-merge compare --tasks rte,cb,copa --methods all
The same command goes on after Ctrl-C: methods that are done are not run again.`;

export function addCompare(program: Command): void {
  const command = program
    .command("compare")
    .description(
      "merge the same experts with many methods, each with its grid searched on validation " +
        "examples, and put them in one table",
    );
  command.option(
    "--methods <names>",
    `all, or some of ${[...methods.map(({ name }) => name), ...Object.keys(trained)].join(", ")}`,
    "all",
  );
  addSettings(command, ["method", "variant", "treat", "adaptOn", "loss"]);
  command
    .option("--no-search", "take each method's customary defaults")
    .option("--keep", "keep every method's merged model, in models/<method>")
    .option("--threads <n>", "threads that merge (default: the machine's cores)")
    .option("--json", "print the results as JSON on stdout")
    .addHelpText("after", examples)
    .action(
      async (
        options: Record<string, unknown> & {
          methods: string;
          search: boolean;
          keep?: boolean;
          threads?: string;
          json?: boolean;
        },
      ) => {
        const chosen = await loadSettings(options);
        const threads = options.threads === undefined ? undefined : Number(options.threads);
        if (threads !== undefined && !(Number.isSafeInteger(threads) && threads >= 0))
          throw new UserError(`--threads ${options.threads}: it must be a whole number from 0 on`);
        const printer = progressPrinter(process.stderr);
        const signals = stopOnSignal(printer.note);
        signals.training(true);
        const own = Object.fromEntries(
          Object.keys(settings)
            .filter((key) => options[key] !== undefined)
            .map((key) => [key, chosen[key as keyof typeof chosen]]),
        );
        // Where things lie is no setting of a method.
        const {
          tasks: _t,
          out: _o,
          base: _b,
          experts: _e,
          family: _f,
          data: _d,
          memoryBudget: _m,
          ...given
        } = own;
        const { compareMethods } = await import("../compare/compare.js");
        const made = await compareMethods(
          {
            ...(await fetchNamed(chosen, printer)),
            methods:
              options.methods === "all"
                ? "all"
                : options.methods
                    .split(",")
                    .map((name) => name.trim())
                    .filter(Boolean),
            search: options.search,
            keep: options.keep ?? false,
            threads,
            given,
          },
          { ...printer, stopping: signals.requested },
        );
        printer.end();
        if (!made.finished) {
          printer.note(`stopped; the same command goes on from ${made.out}`);
          process.exitCode = stoppedCode;
        } else if (options.json) {
          process.stdout.write(`${JSON.stringify(made, undefined, 2)}\n`);
        } else {
          const caption = tableCaption(made.rows, made.synthetic, chosen.valPerTask);
          const table = toText(comparisonTable(made.rows, made.times));
          process.stdout.write(`\n${caption}\n${table}\n\nwritten to ${made.out} (table.md, results.json)\n`);
        }
      },
    );
}
