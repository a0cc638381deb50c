import { UserError } from "../errors.js";
import type { Picture } from "./pixels.js";
import type { Task } from "./registry.js";

/** One labelled example. `texts` holds one text, or a text and its partner; for a choice, one pair an ending. */
export interface Example {
  readonly texts: readonly (readonly [string] | readonly [string, string])[];
  /** The right class or ending; 0 where there is none. */
  readonly label: number;
  /** Of a text to be said: each of them is right. */
  readonly answers?: readonly string[] | undefined;
  /** Of an image task: read, unpacked when it is asked for. */
  readonly picture?: (() => Picture) | undefined;
  /** The row as the file has it, for prompt templates. */
  readonly fields?: Row["fields"] | undefined;
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
  return name === undefined ? undefined : { name, value: row.fields[name] };
}

function text(row: Row, names: readonly string[], taken?: string): { name: string; value: string } {
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
  const named = typeof value === "string" ? (labels?.indexOf(value) ?? -1) : -1;
  if (named >= 0) return named;
  const number =
    typeof value === "number" || (typeof value === "string" && /^\d+$/.test(value)) ? Number(value) : NaN;
  return Number.isInteger(number) && number >= 0 && number < count ? number : undefined;
}

function parseLabel(row: Row, task: Task, count: number): number | undefined {
  const found = pick(row, aliases.label);
  if (!found || found.value === "" || found.value === null || found.value === -1 || found.value === "-1")
    return undefined;
  const { value } = found;
  const truth = classOf(typeof value === "boolean" ? Number(value) : value, task.labels, count);
  if (truth !== undefined) return truth;
  const known = task.labels ? `${task.labels.join(", ")} or 0 to ${count - 1}` : `0 to ${count - 1}`;
  throw new UserError(
    `${row.where}: unknown label ${JSON.stringify(value)} for ${task.id}; it takes ${known}`,
  );
}

/**
 * The right answers: a list, SQuAD's `answers.text`, or one. Undefined where there are none, as in a
 * published test set.
 */
function parseAnswers({ fields, where }: Row): string[] | undefined {
  const { answers, answer } = fields;
  const texts = (answers as { text?: unknown } | null | undefined)?.text;
  const found: unknown = texts ?? answers ?? answer ?? [];
  const list: unknown[] = Array.isArray(found) ? found : [found];
  if (!list.every((one) => typeof one === "string"))
    throw new UserError(`${where}: "answers" must be a list of texts, or {"text": [texts]}`);
  const said = list.filter((one) => one.trim() !== "");
  return said.length ? said : undefined;
}

/** Reads a row as an example of the task; undefined where it carries no label (a published test set). */
export function parseExample(row: Row, task: Task): Example | undefined {
  if (task.kind === "choice") {
    const endings = choices(row);
    const label = parseLabel(row, task, endings.length);
    if (label === undefined) return undefined;
    const question = row.fields["question"];
    const asked = typeof question === "string" ? copaQuestions[question] : undefined;
    const first = text(row, aliases.first).value;
    const context = asked === undefined ? first : `${first} ${asked}`;
    return { texts: endings.map((ending) => [context, ending] as const), label, fields: row.fields };
  }
  if (task.kind === "generate") {
    const answers = parseAnswers(row);
    return answers && { texts: [[text(row, aliases.first).value]], label: 0, answers, fields: row.fields };
  }
  const label = parseLabel(row, task, task.labels!.length);
  if (label === undefined) return undefined;
  const first = text(row, aliases.first);
  if (task.kind === "single") return { texts: [[first.value]], label, fields: row.fields };
  // QNLI pairs a question with a sentence, BoolQ a question with a passage: the second part may go by a "first" name.
  const second = text(row, [...aliases.second, "sentence", "passage"], first.name);
  return { texts: [[first.value, second.value]], label, fields: row.fields };
}
