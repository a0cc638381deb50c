import { Option, type Command } from "commander";
import { basename, resolve } from "node:path";
import { settings } from "../config/settings.js";
import { kebab } from "../spelling.js";
import { loadSettings } from "../config/load.js";
import { startMergeThreads } from "../disk/threads.js";
import { UserError } from "../errors.js";
import { methods } from "../methods/index.js";
import { acceptedParameters } from "../methods/pipeline.js";
import type { Method, Parameter } from "../methods/types.js";

import { nearest } from "../nearest.js";
import { fetchNamed } from "../inputs/fetch.js";
import { writeForms, type WriteForm } from "../checkpoint/write-form.js";
import { toText } from "../report/table.js";
import { progressPrinter } from "./progress.js";
import { stopOnSignal } from "./signals.js";

const shown = ["base", "experts", "out", "dtype", "shardSize", "seed"] as const;

const examples = `
Examples:
  $ train-merge merge --method ties --base base --experts a b c --out merged/ties
  $ train-merge merge --method linear --experts a b --weight 0.7,0.3
  $ train-merge merge --method ties --dare-p 0.9 --base base --experts a b c   DARE first, then TIES
  $ train-merge merge --method ties --base base --experts lora-a lora-b  PEFT adapters, merged as one
  $ train-merge merge config.yml --out merged/from-file                        a mergekit file as it is
\`train-merge methods\` lists the methods with their parameters.`;

/** Every parameter that some method has, once. */
function allParameters(): Map<string, Parameter> {
  const found = new Map<string, Parameter>();
  for (const method of methods)
    for (const [key, parameter] of Object.entries(acceptedParameters(method)))
      if (key !== "seed" && !found.has(key)) found.set(key, parameter);
  return found;
}

const argumentOf = (parameter: Parameter): string =>
  ({ number: "<x>", numbers: "<x,…>", flag: "<on|off>", choice: "<name>" })[parameter.kind];

export function methodOf(name: string): Method {
  const found = methods.find((method) => method.name === name);
  if (!found)
    throw new UserError(
      `--method ${name}: there is no such method${nearest(
        name,
        methods.map((method) => method.name),
      )}; there are ${methods.map((method) => method.name).join(", ")}`,
    );
  return found;
}

/** Gives a command the parameters of all methods. */
export function addParameters(command: Command): void {
  for (const [key, parameter] of allParameters()) {
    const of = methods.filter((method) => Object.hasOwn(method.parameters, key)).map(({ name }) => name);
    command.addOption(
      new Option(
        `--${kebab(key)} ${argumentOf(parameter)}`,
        `${parameter.about}${of.length ? ` (${of.join(", ")})` : ""}`,
      ),
    );
  }
}

/** What a user gave of them. */
export const givenParameters = (options: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(
    [...allParameters().keys()].filter((key) => options[key] !== undefined).map((key) => [key, options[key]]),
  );

export function addMerge(program: Command): void {
  const command = program
    .command("merge")
    .argument("[file]", "a mergekit YAML file")
    .description(
      "merge models with a method that trains nothing, or as a mergekit file says: from disk " +
        "to disk, any architecture, no engine",
    );
  command.option("--method <name>", `one of ${methods.map(({ name }) => name).join(", ")}`);
  const own: Partial<Record<(typeof shown)[number], string>> = {
    experts: "the models' folders",
    out: "where to write (default: merged/<method>-<models>)",
    seed: "draws what is dropped or chosen",
  };
  for (const key of shown)
    command.addOption(
      new Option(`--${kebab(key)} ${settings[key].argument}`, own[key] ?? settings[key].help),
    );
  command.addOption(
    new Option(
      "--write <form>",
      "where all models are adapters: auto and adapter write one, model folds the result into the base",
    )
      .choices([...writeForms])
      .default("auto"),
  );
  command.option("--rank <n>", "rank of a LoRA result (default: the inputs' ranks together)");
  command.option("--threads <n>", "threads that read, merge and write (default: the machine's cores)");
  addParameters(command);
  command
    .option("--json", "print what was made as JSON on stdout")
    .addHelpText("after", examples)
    .action(
      async (
        file: string | undefined,
        options: Record<string, unknown> & {
          method?: string;
          threads?: string;
          rank?: string;
          write: WriteForm;
          json?: boolean;
          experts?: string[];
          base?: string;
        },
      ) => {
        const chosen = await loadSettings({
          ...Object.fromEntries(shown.map((key) => [key, options[key]])),
          tasks: "all",
        });
        const threads = options.threads === undefined ? undefined : Number(options.threads);
        if (threads !== undefined && !(Number.isSafeInteger(threads) && threads >= 0))
          throw new UserError(`--threads ${options.threads}: it must be a whole number from 0 on`);
        const rank = options.rank === undefined ? undefined : Number(options.rank);
        if (rank !== undefined && !(Number.isSafeInteger(rank) && rank > 0))
          throw new UserError(`--rank ${options.rank}: it must be a whole number from 1 on`);
        const printer = progressPrinter(process.stderr);
        const signals = stopOnSignal(printer.note);
        signals.training(true);
        // They start while everything else is read.
        startMergeThreads(threads);
        const common = { shardSize: chosen.shardSize, threads };
        const { mergeByFile, mergeModels } = await import("../mergers/models.js");
        const started = performance.now();
        const hooks = { ...printer, stopping: signals.requested };
        let out: string;
        if (file !== undefined) {
          const stray = ["method", "base", "experts", "dtype", ...Object.keys(givenParameters(options))].find(
            (key) => options[key] !== undefined,
          );
          if (stray !== undefined)
            throw new UserError(`--${kebab(stray)}: the file ${file} says it; change it there`);
          out = chosen.out ?? `merged/${basename(file).replace(/\.ya?ml$/, "")}`;
          await mergeByFile(file, { ...common, out, seed: chosen.seed }, hooks);
        } else {
          if (options.method === undefined)
            throw new UserError(
              "name a method (--method ties) or a mergekit file; `train-merge methods` lists the methods",
            );
          const method = methodOf(options.method);
          if (!chosen.experts) throw new UserError("name the models to merge: --experts FOLDER FOLDER …");
          out =
            chosen.out ??
            `merged/${method.name}-${chosen.experts.map((folder) => basename(resolve(folder))).join("+")}`;
          const { base, experts } = await fetchNamed({ base: chosen.base, experts: chosen.experts }, printer);
          await mergeModels(
            {
              ...common,
              method,
              labels: chosen.experts.map((folder) => basename(folder)),
              given: {
                ...givenParameters(options),
                ...("seed" in acceptedParameters(method) && { seed: chosen.seed }),
              },
              base,
              models: experts,
              out,
              dtype: chosen.dtype,
              write: options.write,
              rank,
            },
            hooks,
          );
        }
        printer.end();
        const seconds = (performance.now() - started) / 1000;
        process.stdout.write(
          options.json
            ? `${JSON.stringify({ out, seconds }, undefined, 2)}\n`
            : `written to ${out} in ${seconds.toFixed(1)} s (README.md, merge.json)\n`,
        );
      },
    );

  program
    .command("methods [name]")
    .description("the methods that train nothing; with a name, its parameters and their defaults")
    .option("--json", "print them as JSON")
    .action((name: string | undefined, options: { json?: boolean }) => {
      const listed = name === undefined ? methods : [methodOf(name)];
      if (options.json) {
        process.stdout.write(
          `${JSON.stringify(
            listed.map((method) => ({
              name: method.name,
              about: method.about,
              needs: method.needs,
              parameters: acceptedParameters(method),
            })),
            undefined,
            2,
          )}\n`,
        );
        return;
      }
      if (name === undefined) {
        const all = methods.map((method) => [method.name, method.about]);
        const table = toText({ head: ["method", "what it does"], body: all }, ["left", "left"]);
        process.stdout.write(`${table}\n\n\`train-merge methods NAME\` shows its parameters.\n`);
        return;
      }
      const body = Object.entries(acceptedParameters(listed[0]!)).map(([key, parameter]) => [
        `--${kebab(key)}`,
        String(parameter.default),
        `${parameter.about}${parameter.kind === "choice" ? `: ${parameter.of.join(", ")}` : ""}`,
      ]);
      const table = toText({ head: ["parameter", "default", "what it is"], body }, ["left", "left", "left"]);
      process.stdout.write(`${listed[0]!.about}\n\n${table}\n`);
    });
}
