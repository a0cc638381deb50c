import { UserError } from "../errors.js";
import type { Picture } from "./pixels.js";
import type { Task } from "./registry.js";

interface ExampleBase {
  /** One text, or a text and its partner; for a choice, one pair an ending; of a picture, none. */
  readonly texts: readonly (readonly [string] | readonly [string, string])[];
  /** The right class or ending; 0 where there is none. */
  readonly label: number;
}

interface TextExample extends ExampleBase {
  readonly kind: "text";
  /** The row as the file has it, for prompt templates. */
  readonly fields: Row["fields"];
}

/** A text that is to be said. */
interface GenerateExample extends ExampleBase {
  readonly kind: "generate";
  /** Each of them is right. */
  readonly answers: readonly [string, ...string[]];
  readonly fields: Row["fields"];
}

interface ImageExample extends ExampleBase {
  readonly kind: "image";
  /** Read and unpacked when it is asked for. */
  picture(): Picture;
}

/** One labelled example. */
export type Example = TextExample | GenerateExample | ImageExample;

/** An example's picture, unpacked. @throws Error where it is none of an image task */
export function pictureOf(example: Example): Picture {
  if (example.kind !== "image") throw new Error("an example of texts has no picture");
  return example.picture();
}

/** A row as a file holds it, with where it stands for error messages. */
export interface Row {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly where: string;
}

/** The names that published files give to the parts of an example, ours first. */
export const aliases = {
  first: [
    "text_a",
    "premise",
    "sentence1",
    "question1",
    "question",
    "sentence",
    "passage",
    "text",
    "#1 String",
  ],
  second: ["text_b", "hypothesis", "sentence2", "question2", "#2 String"],
  label: ["label", "gold_label", "is_duplicate", "Quality", "answer"],
};

function pick(
  row: Row,
  names: readonly string[],
  taken?: string,
): { name: string; value: unknown } | undefined {
  const name = names.find((candidate) => candidate !== taken && row.fields[candidate] !== undefined);
  if (name === undefined) return undefined;
  return { name, value: row.fields[name] };
}

function textIn(row: Row, names: readonly string[], taken?: string): { name: string; value: string } {
  const found = pick(row, names, taken);
  if (!found)
    throw new UserError(
      `${row.where}: there is no ${names[0]} (columns: ${Object.keys(row.fields).join(", ")})`,
    );
  if (typeof found.value !== "string") throw new UserError(`${row.where}: "${found.name}" is not a text`);
  return { name: found.name, value: found.value };
}

function choices(row: Row): string[] {
  const { choices: list, choice1, choice2 } = row.fields;
  const found = list ?? [choice1, choice2];
  if (!Array.isArray(found) || found.length < 2 || !found.every((c) => typeof c === "string")) {
    throw new UserError(`${row.where}: a choice needs "choices", a list of two texts or more`);
  }
  return found;
}

/** COPA as published asks for a cause or an effect in a column; the question is put into words. */
const copaQuestions: Record<string, string> = {
  cause: "What was the cause of this?",
  effect: "What happened as a result?",
};

/**
 * A class's number of `count`, by its name or its number (with zeros in front or without); undefined
 * where it is none.
 */
export function classOf(value: unknown, labels: readonly string[] | null, count: number): number | undefined {
  if (typeof value === "string") {
    const named = labels?.indexOf(value) ?? -1;
    if (named >= 0) return named;
    if (!/^\d+$/.test(value)) return undefined;
  } else if (typeof value !== "number") return undefined;
  const number = Number(value);
  if (Number.isInteger(number) && number >= 0 && number < count) return number;
  return undefined;
}

/** Its label; undefined where it has none, as in a published test set. */
function parseLabel(row: Row, { id, labels }: Task, count: number): number | undefined {
  const value = pick(row, aliases.label)?.value;
  if (value === undefined || value === "" || value === null || value === -1 || value === "-1")
    return undefined;
  const label = classOf(typeof value === "boolean" ? Number(value) : value, labels, count);
  if (label !== undefined) return label;
  const numbers = `0 to ${count - 1}`;
  const known = labels ? `${labels.join(", ")} or ${numbers}` : numbers;
  throw new UserError(`${row.where}: unknown label ${JSON.stringify(value)} for ${id}; it takes ${known}`);
}

/** Whether a value that was read is an object (or a list). */
export const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null;

/**
 * The right answers: a list, SQuAD's `answers.text`, or one. Undefined where there are none, as in a
 * published test set.
 */
function parseAnswers({ fields, where }: Row): GenerateExample["answers"] | undefined {
  const { answers, answer } = fields;
  const texts = isObject(answers) ? answers["text"] : undefined;
  const found = texts ?? answers ?? answer ?? [];
  const list: unknown[] = Array.isArray(found) ? found : [found];
  if (!list.every((one) => typeof one === "string"))
    throw new UserError(`${where}: "answers" must be a list of texts, or {"text": [texts]}`);
  const [first, ...more] = list.filter((one) => one.trim() !== "");
  if (first === undefined) return undefined;
  return [first, ...more];
}

function parseChoice(row: Row, task: Task): Example | undefined {
  const endings = choices(row);
  const label = parseLabel(row, task, endings.length);
  if (label === undefined) return undefined;
  const { question } = row.fields;
  const first = textIn(row, aliases.first).value;
  const asked = typeof question === "string" && copaQuestions[question];
  const context = asked ? `${first} ${asked}` : first;
  return {
    kind: "text",
    texts: endings.map((ending) => [context, ending] as const),
    label,
    fields: row.fields,
  };
}

/** Reads a row as an example of the task; undefined where it carries no label (a published test set). */
export function parseExample(row: Row, task: Task): Example | undefined {
  const { fields } = row;
  if (task.kind === "choice") return parseChoice(row, task);
  if (task.kind === "generate") {
    const answers = parseAnswers(row);
    return (
      answers && { kind: "generate", texts: [[textIn(row, aliases.first).value]], label: 0, answers, fields }
    );
  }
  const label = parseLabel(row, task, task.labels.length);
  if (label === undefined) return undefined;
  const first = textIn(row, aliases.first);
  if (task.kind === "single") return { kind: "text", texts: [[first.value]], label, fields };
  // QNLI pairs a question with a sentence, BoolQ a question with a passage: the second part may go by a "first" name.
  const second = textIn(row, [...aliases.second, "sentence", "passage"], first.name);
  return { kind: "text", texts: [[first.value, second.value]], label, fields };
}
