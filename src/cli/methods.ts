import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { Option, type Command } from "commander";
import { kebab, UsageError } from "../errors.js";
import { knownData, type KnownData } from "../mergers/choose.js";
import { presetOf } from "../config/load.js";
import { settingsSchema } from "../config/schema.js";
import { dataSeen } from "../train/passes.js";
import { trainedPresets, type TrainedPreset } from "../config/trained.js";
import { methods } from "../methods/index.js";
import { acceptedParameters } from "../methods/pipeline.js";
import type { Method, Parameter } from "../methods/types.js";
import { toText } from "../report/table.js";
import { chosenMethod } from "./merge.js";
import { printJson } from "./options.js";

/** What of the data a method needs, beside what a search of its parameters would look at. */
const needed = ({ needs }: Method): string => (needs ? "inputs" : "none");

/** The settings of a trained merge as a command line has them. */
const flagsOf = ({ settings }: TrainedPreset): string =>
  Object.entries(settings)
    .map(([key, value]) => `--${kebab(key)} ${value}`)
    .join(" ");

function presetNeeds({ settings }: TrainedPreset): string {
  const preset = presetOf(settings["method"], settings["variant"]);
  const { loss, adaptOn } = settingsSchema.parse({ tasks: ["a", "b"], ...preset, ...settings });
  return dataSeen(loss, adaptOn);
}

function methodList(): string {
  const plain = methods.map((method) => [method.name, needed(method), method.about]);
  const trained = Object.entries(trainedPresets).map(([name, preset]) => [
    name,
    presetNeeds(preset),
    preset.about,
  ]);
  const table = (body: string[][]) =>
    toText({ head: ["method", "data", "what it does"], body }, ["left", "left", "left"]);
  return `Nothing is trained: train-merge merge --method NAME (those that need inputs: train-merge compare)

${table(plain)}

Coefficients are trained: train-merge compare --methods NAME, or train-merge with what \`methods NAME\` says

${table(trained)}

\`train-merge methods NAME\` shows a method's parameters. \`train-merge compare\` runs them side by side on your models.
`;
}

/** A trained merge: what it is, and the command that makes it. */
function presetText(preset: TrainedPreset): string {
  const flags = flagsOf(preset);
  const command = `train-merge --tasks … --base … --experts … --data …${flags && ` ${flags}`}`;
  const more = "`train-merge --help all` has every setting of a training.";
  return `${preset.about}\ndata: ${presetNeeds(preset)}\n\n${command}\n\n${more}\n`;
}

function parameterText(parameter: Parameter): string {
  if (parameter.kind !== "choice") return parameter.about;
  return `${parameter.about}: ${parameter.of.join(", ")}`;
}

function methodText(method: Method): string {
  const body = Object.entries(acceptedParameters(method)).map(([key, parameter]) => [
    `--${kebab(key)}`,
    String(parameter.default),
    parameterText(parameter),
  ]);
  const table = toText({ head: ["parameter", "default", "what it is"], body }, ["left", "left", "left"]);
  return `${method.about}\ndata: ${needed(method)}\n\n${table}\n`;
}

const methodJson = (method: Method) => ({
  name: method.name,
  about: method.about,
  needs: method.needs,
  data: needed(method),
  parameters: acceptedParameters(method),
});
const presetJson = (name: string, preset: TrainedPreset) => ({
  name,
  about: preset.about,
  data: presetNeeds(preset),
  settings: preset.settings,
});

interface MethodsFlags {
  json?: boolean;
  choose?: boolean;
  base?: string;
  experts?: string[];
  data: KnownData;
}

/** `task=FOLDER` as the folder alone, and a folder that holds one for each task as those. */
async function expertFolders(given: readonly string[]): Promise<string[]> {
  const folders = given.map((one) => one.replace(/^\w[\w.-]*=/, ""));
  const [only, ...more] = folders;
  if (only === undefined || more.length > 0 || existsSync(join(only, "config.json"))) return folders;
  const inside = await readdir(only, { withFileTypes: true });
  const found = inside.filter((entry) => entry.isDirectory()).map(({ name }) => join(only, name));
  return found.length > 0 ? found : folders;
}

/** Three methods to try on some experts, and why. */
async function runChoose({ base, experts, data, json }: MethodsFlags): Promise<void> {
  if (base === undefined || experts === undefined)
    throw new UsageError("--choose looks at models: name them with --base FOLDER and --experts FOLDER …");
  const { chooseMethods } = await import("../mergers/choose.js");
  const chosen = await chooseMethods(base, await expertFolders(experts), data);
  if (json) {
    printJson(chosen);
    return;
  }
  const { cosine, width, choices, adapters } = chosen;
  const what = adapters ? `${chosen.experts} experts, adapters among them` : `${chosen.experts} experts`;
  const apart = cosine
    ? `; their task vectors' cosines are ${cosine.least.toFixed(2)} to ${cosine.most.toFixed(2)} (a sample)`
    : "";
  const body = choices.map(({ method, why }) => [method, why]);
  const table = toText({ head: ["method", "why"], body }, ["left", "left"]);
  process.stdout.write(
    `${what}, layers of up to ${width} dimensions${apart}. To learn from: ${data}.\n\n${table}\n\n` +
      `train-merge compare --methods ${choices.map(({ method }) => method).join(",")} … puts them in one table.\n`,
  );
}

const chooseHelp = `
Examples:
  $ train-merge methods wudi
  $ train-merge methods --choose --base BASE --experts A B C --data inputs`;

export function addMethods(program: Command): void {
  program
    .command("methods [name]")
    .description("list the methods, or one with its parameters; or choose three to try on your models")
    .option(
      "--choose",
      "look at models, headers and a sample of their weights, and name three methods to try",
    )
    .option("--base <folder>", "for --choose: the base model's folder")
    .option("--experts <folders...>", "for --choose: the experts' folders, or one that holds them")
    .addOption(
      new Option("--data <what>", "for --choose: what there is to learn from")
        .choices(knownData)
        .default("none"),
    )
    .option("--json", "print it as JSON")
    .addHelpText("after", chooseHelp)
    .action(async (name: string | undefined, flags: MethodsFlags) => {
      const { json } = flags;
      if (flags.choose) return runChoose(flags);
      const isPreset = name !== undefined && Object.hasOwn(trainedPresets, name);
      const preset = isPreset ? trainedPresets[name] : undefined;
      if (name === undefined) {
        const all = [
          ...methods.map(methodJson),
          ...Object.entries(trainedPresets).map(([one, it]) => presetJson(one, it)),
        ];
        if (json) printJson(all);
        else process.stdout.write(methodList());
      } else if (preset) {
        if (json) printJson([presetJson(name, preset)]);
        else process.stdout.write(presetText(preset));
      } else {
        const method = chosenMethod(name, "methods ", Object.keys(trainedPresets));
        if (json) printJson([methodJson(method)]);
        else process.stdout.write(methodText(method));
      }
      return undefined;
    });
}
