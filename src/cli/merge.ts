import { basename, resolve } from "node:path";
import { Option, type Command } from "commander";
import { writeForms, type WriteForm } from "../checkpoint/write-form.js";
import { loadSettings } from "../config/load.js";
import { wholeNumber } from "../config/numbers.js";
import type { Settings } from "../config/schema.js";
import { startMergeThreads } from "../disk/threads.js";
import { UsageError, kebab } from "../errors.js";
import { fetchNamed } from "../inputs/locate.js";
import { methods } from "../methods/index.js";
import { acceptedParameters } from "../methods/pipeline.js";
import type { Method, Parameter } from "../methods/types.js";
import type { ModelsMerge } from "../mergers/models.js";
import { nearest } from "../nearest.js";
import { startCommand, type RunningCommand } from "./running.js";
import { checkedOption, printJson, settingOption, type Given } from "./options.js";

/** Settings of a run that a merge without training has too. */
const sharedSettings = [
  "base",
  "experts",
  "out",
  "dtype",
  "shardSize",
  "seed",
  "allowPartial",
  "allowMismatch",
  "strict",
  "overwrite",
  "dequantise",
] as const;

const mergeHelp = `
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

const placeholders: Readonly<Record<Parameter["kind"], string>> = {
  number: "<x>",
  numbers: "<x,…>",
  flag: "<on|off>",
  choice: "<name>",
};

/**
 * The method of that name.
 * @param others names that would have been known too
 * @throws UsageError, with the nearest name, where there is none
 */
export function chosenMethod(name: string, asked = "--method ", others: readonly string[] = []): Method {
  const found = methods.find((method) => method.name === name);
  if (found) return found;
  const names = [...methods.map((method) => method.name), ...others];
  throw new UsageError(
    `${asked}${name}: there is no such method${nearest(name, names)}; there are ${names.join(", ")}`,
  );
}

/** Gives a command the parameters of all methods. */
function addParameters(command: Command): void {
  for (const [key, parameter] of allParameters()) {
    const of = methods.filter((method) => Object.hasOwn(method.parameters, key)).map(({ name }) => name);
    const isOfAny = methods.every((method) => Object.hasOwn(acceptedParameters(method), key));
    const whose = isOfAny ? "any method" : of.join(", ");
    command.addOption(
      new Option(`--${kebab(key)} ${placeholders[parameter.kind]}`, `${parameter.about} (${whose})`),
    );
  }
}

/** What a user gave of them. */
const givenParameters = (options: Given): Record<string, unknown> =>
  Object.fromEntries(
    [...allParameters().keys()].filter((key) => options[key] !== undefined).map((key) => [key, options[key]]),
  );

interface MergeFlags extends Given {
  method?: string;
  threads?: number;
  rank?: number;
  write: WriteForm;
  tokenizer?: string;
  json?: boolean;
}

/** Merges as a mergekit file says. @returns the folder that was written */
async function runMergekitFile(
  file: string,
  options: MergeFlags,
  chosen: Settings,
  job: RunningCommand,
): Promise<string> {
  const ofMethods = [
    "method",
    "base",
    "experts",
    "dtype",
    "tokenizer",
    "rank",
    ...Object.keys(givenParameters(options)),
  ];
  if (options.write !== "auto") ofMethods.push("write");
  const stray = ofMethods.find((key) => options[key] !== undefined);
  if (stray !== undefined)
    throw new UsageError(`--${kebab(stray)}: the file ${file} sets it; change it there`);
  const { mergeByMergekitFile } = await import("../mergers/mergekit-file.js");
  const out = chosen.out ?? `merged/${basename(file).replace(/\.ya?ml$/, "")}`;
  await mergeByMergekitFile(file, { ...chosen, threads: options.threads, out }, job);
  return out;
}

/** Whose tokens the result has: "base", "union", or a model by its name among the merged, its folder or its id. */
async function chosenTokenizer(
  name: string | undefined,
  experts: readonly string[],
  job: RunningCommand,
): Promise<ModelsMerge["tokenizer"]> {
  if (name === undefined || name === "base") return name;
  if (name === "union") return { source: name };
  const named = experts.find((folder) => basename(resolve(folder)) === name) ?? name;
  const { base: source } = await fetchNamed({ base: named }, job);
  return { source };
}

/** Merges with a method. @returns the folder that was written */
async function runMergeMethod(options: MergeFlags, chosen: Settings, job: RunningCommand): Promise<string> {
  if (options.method === undefined)
    throw new UsageError(
      "name a method (--method ties) or a mergekit file; `train-merge methods` lists the methods",
    );
  const method = chosenMethod(options.method);
  if (!chosen.experts) throw new UsageError("name the models to merge: --experts FOLDER FOLDER …");
  const names = chosen.experts.map((folder) => basename(resolve(folder)));
  const out = chosen.out ?? `merged/${method.name}-${names.join("+")}`;
  const { base, experts } = await fetchNamed({ base: chosen.base, experts: chosen.experts }, job);
  const { mergeFolders } = await import("../mergers/models.js");
  const seed = "seed" in acceptedParameters(method) && { seed: chosen.seed };
  await mergeFolders(
    {
      shardSize: chosen.shardSize,
      threads: options.threads,
      method,
      labels: chosen.experts.map((folder) => basename(folder)),
      given: { ...givenParameters(options), ...seed },
      base,
      models: experts,
      out,
      dtype: chosen.dtype,
      write: options.write,
      rank: options.rank,
      tokenizer: await chosenTokenizer(options.tokenizer, experts, job),
      allowPartial: chosen.allowPartial,
      allowMismatch: chosen.allowMismatch,
      strict: chosen.strict,
      overwrite: chosen.overwrite,
      dequantise: chosen.dequantise,
    },
    job,
  );
  return out;
}

async function runMerge(file: string | undefined, options: MergeFlags): Promise<void> {
  const given = Object.fromEntries(sharedSettings.map((key) => [key, options[key]]));
  const chosen = await loadSettings({ ...given, tasks: "all" });
  const job = startCommand();
  job.training(true);
  // They start while everything else is read.
  startMergeThreads(options.threads);
  const started = performance.now();
  const out =
    file === undefined
      ? await runMergeMethod(options, chosen, job)
      : await runMergekitFile(file, options, chosen, job);
  job.end();
  const seconds = (performance.now() - started) / 1000;
  if (options.json) printJson({ out, seconds });
  else process.stdout.write(`written to ${out} in ${seconds.toFixed(1)} s (README.md, merge.json)\n`);
}

export function addMerge(program: Command): void {
  const command = program
    .command("merge")
    .argument("[file]", "a mergekit YAML file")
    .description(
      "merge models with a method that trains nothing, or as a mergekit file says: from disk " +
        "to disk, any architecture, no engine",
    );
  const own: Partial<Record<(typeof sharedSettings)[number], string>> = {
    experts: "the models' folders",
    out: "where to write (default: merged/<method>-<models>)",
    seed: "draws what is dropped or chosen",
  };
  command.option("--method <name>", `one of ${methods.map(({ name }) => name).join(", ")}`);
  for (const key of sharedSettings) command.addOption(settingOption(key, own[key]));
  command
    .addOption(
      new Option(
        "--write <form>",
        "where all models are adapters: auto and adapter write one, model folds the result into the base",
      )
        .choices(writeForms)
        .default("auto"),
    )
    .addOption(
      new Option(
        "--tokenizer <whose>",
        "where vocabularies are unlike: base keeps the base's (without a base, the first model's), union has all " +
          "tokens, a model's name or folder gives that one's",
      ),
    )
    .addOption(
      checkedOption(
        "--rank <n>",
        "rank of a LoRA result (default: the inputs' ranks together)",
        wholeNumber(),
      ),
    )
    .addOption(
      checkedOption(
        "--threads <n>",
        "threads that read, merge and write (default: the machine's cores)",
        wholeNumber(0),
      ),
    );
  addParameters(command);
  command
    .option("--json", "print what was made as JSON on stdout")
    .addHelpText("after", mergeHelp)
    .action(runMerge);
}
