/** Rows of a data file as examples of a task. */
import { UserError } from "../errors.js";
import { parseMessages } from "./chat.js";
import { aliases, classOf, isObject, listUnder, mapped, pick, textIn, type Row } from "./columns.js";
import type { Example, SpanAnswer } from "./examples.js";
import { inParts } from "./published.js";
import type { ClassTask, Task } from "./registry.js";

type ExampleOf<Kind extends Example["kind"]> = Extract<Example, { readonly kind: Kind }>;

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

/**
 * The right answers: a list, SQuAD's `answers.text`, or one. Undefined where there are none, as in a
 * published test set.
 */
function parseAnswers({ fields, where }: Row): ExampleOf<"generate">["answers"] | undefined {
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

const decimal = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** Its number; undefined where it has none. */
function parseNumber(row: Row, { id }: Task): number | undefined {
  const given = pick(row, aliases.number)?.value;
  const value = typeof given === "string" ? given.trim() : given;
  if (value === undefined || value === "" || value === null) return undefined;
  if (typeof value === "number" && Number.isFinite(value)) return value;
  if (typeof value === "string" && decimal.test(value)) return Number(value);
  throw new UserError(`${row.where}: ${JSON.stringify(value)} is no number; ${id} is a regression`);
}

/** Several labels in one text, as files of separated values have them. */
const splitLabels = (value: string): string[] =>
  value
    .split(/[,;|]/)
    .map((one) => one.trim())
    .filter((one) => one !== "");

/** Labels in a list: names, numbers of classes, or a 0 or 1 for every class. */
function marksIn(list: readonly unknown[], labels: readonly string[], where: string): number[] {
  const isVector =
    list.length === labels.length && list.every((one) => typeof one === "boolean" || one === 0 || one === 1);
  // Of two labels, [0, 1] may be both by their numbers, or the second alone.
  if (isVector && labels.length === 2 && list.some((one) => typeof one === "number"))
    throw new UserError(
      `${where}: ${JSON.stringify(list)} may be numbers of the two labels, or a 0 or 1 for each: write their names ` +
        `(${labels.join(", ")}), or true and false`,
    );
  if (isVector) return list.map(Number);
  const marks = labels.map(() => 0);
  for (const one of list) {
    const label = classOf(one, labels, labels.length);
    if (label === undefined)
      throw new UserError(
        `${where}: unknown label ${JSON.stringify(one)}; it takes lists of ${labels.join(", ")}, of their numbers, ` +
          `or ${labels.length} times 0 or 1`,
      );
    marks[label] = 1;
  }
  return marks;
}

/** Of every label, 1 where it holds; undefined where the row says nothing of them. */
function parseMarks(row: Row, labels: readonly string[]): number[] | undefined {
  const { fields, where } = row;
  // A column a label.
  const columns = labels.map((label) => fields[label]);
  if (columns.every((value) => ["0", "1", 0, 1, true, false].some((one) => one === value)))
    return columns.map(Number);
  const value = pick(row, aliases.marks)?.value;
  if (value === undefined || value === null) return undefined;
  if (Array.isArray(value)) return marksIn(value, labels, where);
  if (typeof value === "string") return marksIn(splitLabels(value), labels, where);
  throw new UserError(`${where}: "labels" must be a list`);
}

function parseTags(row: Row, { id, labels }: ClassTask): ExampleOf<"tag"> | undefined {
  const words = listUnder(row, aliases.words);
  if (!words?.length || !words.every((word) => typeof word === "string"))
    throw new UserError(`${row.where}: a task of words needs "tokens", a list of one text or more`);
  const given = listUnder(row, aliases.tags);
  if (!given) return undefined;
  if (given.length !== words.length)
    throw new UserError(`${row.where}: there are ${given.length} tags of ${words.length} tokens`);
  const tags = given.map((tag) => {
    if (tag === -100) return -1;
    const label = classOf(tag, labels, labels.length);
    if (label === undefined)
      throw new UserError(
        `${row.where}: unknown tag ${JSON.stringify(tag)} for ${id}; it takes ${labels.join(", ")} or 0 to ` +
          `${labels.length - 1}`,
      );
    return label;
  });
  return { kind: "tag", texts: [], label: 0, words, tags };
}

/** Pairs of an answer and its place, however the row lists them. */
function answerPairs(answers: unknown, where: string): (readonly [text: unknown, start: unknown])[] {
  if (Array.isArray(answers))
    return answers.map((one: unknown) => {
      if (isObject(one)) return [one["text"], one["answer_start"]];
      return [one, undefined];
    });
  if (isObject(answers) && Array.isArray(answers["text"])) {
    const starts: unknown[] = [answers["answer_start"]].flat();
    return answers["text"].map((text: unknown, i) => [text, starts[i]]);
  }
  throw new UserError(`${where}: "answers" must be {"text": [texts], "answer_start": [numbers]}`);
}

/** Where an answer stands in a context: places are counted in characters, as Python counts them. */
function answerIn(context: string, [text, start]: readonly [unknown, unknown], where: string): SpanAnswer {
  if (typeof text !== "string" || text === "") throw new UserError(`${where}: an answer is no text`);
  if (typeof start === "number") {
    const before = Array.from(context).slice(0, start).join("").length;
    if (context.startsWith(text, before)) return { text, start: before };
  }
  const found = context.indexOf(text);
  if (start === undefined && found >= 0) return { text, start: found };
  throw new UserError(
    `${where}: the answer ${JSON.stringify(text.slice(0, 60))} does not stand where its answer_start says`,
  );
}

function parseSpan(row: Row): ExampleOf<"span"> | undefined {
  const question = textIn(row, ["question"]).value;
  const context = textIn(row, ["context", "passage"]).value;
  const { answers } = row.fields;
  if (answers === undefined || answers === null) return undefined;
  const found = answerPairs(answers, row.where).map((pair) => answerIn(context, pair, row.where));
  return { kind: "span", texts: [[question, context]], label: 0, question, context, answers: found };
}

/** One text or two, as the row has them. */
function textsOf(row: Row): ExampleOf<"text">["texts"][number] {
  const first = textIn(row, aliases.first);
  const second = pick(row, aliases.second, first.name);
  if (!second) return [first.value];
  return [first.value, textIn(row, aliases.second, first.name).value];
}

/** Two texts, each by itself, and how alike they are. */
function parseScored(row: Row, task: Task): Example | undefined {
  const label = parseNumber(row, task);
  if (label === undefined) return undefined;
  const first = textIn(row, aliases.first);
  const second = textIn(row, aliases.second, first.name);
  return { kind: "text", texts: [[first.value], [second.value]], label, fields: row.fields };
}

/** A text, its partner, and those that are none: `negative`, `negative_1` …, or a list. */
function parseMatch(row: Row): Example {
  const anchor = textIn(row, ["anchor", "query", ...aliases.first]);
  const positive = textIn(row, ["positive", "answer", "passage", "document", ...aliases.second], anchor.name);
  const names = Object.keys(row.fields).filter((name) => /^negatives?(_\d+)?$/.test(name));
  const negatives = names.flatMap((name) => row.fields[name]);
  if (!negatives.every((one) => typeof one === "string"))
    throw new UserError(`${row.where}: "${names.join(", ")}" must be texts`);
  const texts = [anchor.value, positive.value, ...negatives].map((text) => [text] as const);
  return { kind: "text", texts, label: 0, fields: row.fields };
}

/**
 * Reads a row as an example of the task; undefined where it carries no label (a published test set).
 * @param mayLack whether a text that is to be said may be missing, where experts say it
 */
export function parseExample(given: Row, task: Task, mayLack = false): Example | undefined {
  const row = mapped(given, task);
  const example = exampleOf(inParts(row, task), task, mayLack);
  // Templates are written for the columns as they stand in the file.
  return example && "fields" in example ? { ...example, fields: row.fields } : example;
}

function exampleOf(row: Row, task: Task, mayLack: boolean): Example | undefined {
  const { fields } = row;
  if (task.kind === "regression") {
    const label = parseNumber(row, task);
    if (label === undefined) return undefined;
    return { kind: "text", texts: [textsOf(row)], label, fields };
  }
  if (task.kind === "multi-label") {
    const marks = parseMarks(row, task.labels);
    return marks && { kind: "mark", texts: [textsOf(row)], label: 0, marks };
  }
  if (task.kind === "tokens") return parseTags(row, task);
  if (task.kind === "span") return parseSpan(row);
  if (task.kind === "chat") {
    const messages = parseMessages(row, mayLack);
    return messages && { kind: "chat", texts: [], label: 0, messages, tools: fields["tools"] };
  }
  if (task.kind === "similarity") return parseScored(row, task);
  if (task.kind === "retrieval") return parseMatch(row);
  if (task.kind === "choice") return parseChoice(row, task);
  if (task.kind === "generate") {
    const answers = parseAnswers(row) ?? (mayLack ? [] : undefined);
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
