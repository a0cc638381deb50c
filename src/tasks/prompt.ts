/** An example put into words by a template. */
import seedrandom from "seedrandom";
import { messageOf, UserError } from "../errors.js";
import { aliases } from "./columns.js";
import type { Example } from "./examples.js";
import { compilePrompt, partsOf, type PromptTemplate } from "./prompt-jinja.js";
import type { Task } from "./registry.js";

/** What a model is given, and what it may say; or the one text that it is to say. */
export interface Prompted {
  readonly prompt: string;
  readonly answers: readonly string[];
  /** The place of the right answer, which is the template's own. */
  readonly label: number;
}

/** A template of a task. */
export interface Template {
  readonly name: string;
  /** An example in its words; undefined where it is none of its examples. @throws UserError */
  put(example: Example): Prompted | undefined;
}

/** A template in promptsource's words: what stands before ||| is given, the rest is to be said. */
export interface Entry {
  readonly name: string;
  readonly jinja: string;
  readonly answer_choices?: string | null | undefined;
}

/** Whose templates: ours are written for the parts of an example, promptsource's for the columns of published files. */
export type Style = "ours" | "promptsource";

/** A value by those of some names that can be a template's; nothing where there is no value. */
function valuesBy(names: readonly string[], value: unknown): Record<string, unknown> {
  if (value === undefined) return {};
  return Object.fromEntries(names.filter((name) => /^\w+$/.test(name)).map((name) => [name, value]));
}

/** The endings of a choice. */
const endingsOf = ({ texts }: Example): unknown[] => texts.map(([, ending]) => ending);

/** The endings by the names that templates have for each: choice1, choice2, … */
const numberedEndings = (example: Example): Record<string, unknown> =>
  Object.fromEntries(endingsOf(example).map((ending, i) => [`choice${i + 1}`, ending]));

/** The parts of an example by the names that are ours. */
function partsOfExample(example: Example, { kind }: Task): Record<string, unknown> {
  const { texts, label } = example;
  const [first, second] = texts[0] ?? [];
  return {
    ...valuesBy(["text_a"], first),
    ...(kind === "choice" ? { choices: endingsOf(example) } : valuesBy(["text_b"], second)),
    ...(example.kind === "generate" && { answers: example.answers, answer: example.answers[0] }),
    label,
  };
}

/** Whether a label is one as published: a number, or one in a text, perhaps counted from 1. */
const isNumber = (label: unknown): boolean => typeof label === "number" || /^-?\d+$/.test(String(label));

const isNoQuestion = (name: string): boolean => name !== "question";

/** An example's values by every name that a template may use for them. */
function context(example: Example, task: Task, style: Style): Record<string, unknown> {
  const [first, second] = example.texts[0] ?? [];
  const parts = partsOfExample(example, task);
  const fields = "fields" in example ? example.fields : {};
  // What COPA calls a question is whether a cause is asked for.
  const names =
    style === "ours" || task.kind !== "choice" ? aliases.first : aliases.first.filter(isNoQuestion);
  const others = {
    ...valuesBy(names, first),
    ...(task.kind === "choice" ? numberedEndings(example) : valuesBy(aliases.second, second)),
  };
  if (style === "ours") return { ...others, ...fields, ...parts };
  return { ...others, ...parts, ...fields, ...(!isNumber(fields["label"]) && { label: example.label }) };
}

/** The answers of a template that lists none: an example's own choices, or the names of the classes. */
function answersOf({ choices }: Readonly<Record<string, unknown>>, { labels }: Task): readonly string[] {
  if (Array.isArray(choices) && choices.every((one) => typeof one === "string")) return choices;
  return labels ?? [];
}

/** Values of the row that promptsource cuts, as T0 and T-Few were trained: longer ones at the last space before. */
const longestValue = 2048;
const cutValues = (jinja: string): string =>
  jinja.replaceAll("}}", ` | string | truncate(${longestValue}) }}`);

/** @throws Error where the example has not got what a template reads */
function checkNeeds(
  { needs }: PromptTemplate,
  values: Readonly<Record<string, unknown>>,
  example: Example,
): void {
  const missing = needs.find((name) => !Object.hasOwn(values, name));
  if (missing === undefined) return;
  const columns = Object.keys("fields" in example ? example.fields : {});
  throw new Error(
    `it reads "${missing}", and the data have the columns ${columns.join(", ")}; templates of promptsource are ` +
      "written for the files as they are published",
  );
}

/** Where a template's right answer stands among its answers. @throws Error where it is none of them */
function placeOf(target: string, answers: readonly string[], { label }: Example, { metrics }: Task): number {
  if (answers[label] === target) return label;
  const place = answers.indexOf(target);
  if (place < 0)
    throw new Error(`it calls "${target}" right, which is none of its answers: ${answers.join(", ")}`);
  const metric = metrics.find((name) => name !== "accuracy");
  if (metric !== undefined)
    throw new Error(`its answers are not in the order of the classes, and ${metric} is counted by class`);
  return place;
}

/** Reads a template. @param where its file, for errors @throws UserError */
export function compileTemplate(
  { name, jinja, answer_choices: listed }: Entry,
  task: Task,
  style: Style,
  where: string,
): Template {
  const told = <T>(make: () => T): T => {
    try {
      return make();
    } catch (error) {
      throw new UserError(`${where}: template "${name}" of ${task.id}: ${messageOf(error)}`);
    }
  };
  const body = told(() => compilePrompt(style === "ours" ? jinja : cutValues(jinja)));
  const choices = told(() => (listed == null ? undefined : compilePrompt(listed)));
  const put = (example: Example): Prompted | undefined => {
    const values = { ...context(example, task, style), answer_choices: [] as readonly string[] };
    // What a template draws is an example's own: the same in every run. Few draw anything.
    let drawn: (() => number) | undefined;
    const random = () => {
      const own = "fields" in example ? example.fields : example.texts;
      drawn ??= seedrandom(`${task.id}/${name}/${JSON.stringify(own)}`);
      return drawn();
    };
    if (choices) checkNeeds(choices, values, example);
    if (example.kind !== "generate")
      values.answer_choices = choices ? partsOf(choices.render(values, random)) : answersOf(values, task);
    checkNeeds(body, values, example);
    const [prompt = "", target] = partsOf(body.render(values, random));
    if (prompt === "") return undefined;
    if (example.kind === "generate") {
      const said = target !== undefined && target !== "" ? target : (example.answers[0] ?? "");
      return { prompt, answers: [said], label: 0 };
    }
    const answers = values.answer_choices;
    if (target === "") return undefined;
    if (target !== undefined) return { prompt, answers, label: placeOf(target, answers, example, task) };
    if (answers.length > example.label) return { prompt, answers, label: example.label };
    throw new Error(`it gives ${answers.length} answers, the example's is number ${example.label}`);
  };
  return { name, put: (example) => told(() => put(example)) };
}
