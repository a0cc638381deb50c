/** What a model answered, for people to read: wrong answers, and each class's numbers. */
import { at } from "../at.js";
import type { TokenRow } from "../models/types.js";
import type { EncodedExample } from "../tasks/batches.js";
import { classLists, listsOf, type AnswerNames, type Answered, type Said } from "./answers.js";
import type { GeneratedText } from "./generations.js";
import { countsOf, ratio, type ClassCounts } from "./metrics.js";

/** A task's answers, with what they are named by. */
export interface AnsweredTask extends AnswerNames {
  readonly id: string;
  readonly answered: readonly Answered[];
}

/** A class by its name; by its number where it has none. */
const named = (classes: readonly string[] | undefined, one: number): string => classes?.[one] ?? String(one);

/** The names of labels that hold. */
const namesOfMarks = (marks: readonly number[], classes: readonly string[] | undefined): string[] =>
  marks
    .map((mark, label) => ({ mark, name: named(classes, label) }))
    .filter(({ mark }) => mark === 1)
    .map(({ name }) => name);

const listedMarks = (marks: readonly number[], classes: readonly string[] | undefined): string =>
  namesOfMarks(marks, classes).join(", ") || "none";

type Decode = ((ids: readonly number[]) => string) | undefined;

const rowText = ({ ids, patches }: TokenRow, decode: Decode): string => {
  if (patches || !decode) return "(an image)";
  return decode(ids);
};

/** Tags that differ, each behind its word's first token. */
function tagTexts(
  example: EncodedExample & { readonly kind: "tag" },
  said: readonly number[],
  classes: readonly string[] | undefined,
  decode: Decode,
): [said: string, right: string] {
  const row = at(example.rows, 0);
  const tagged = example.tags.map((tag, token) => ({ tag, token })).filter(({ tag }) => tag >= 0);
  const wrong = tagged
    .map((one, i) => ({ ...one, said: at(said, i) }))
    .filter(({ tag, said: mine }) => tag !== mine);
  const textOf = (token: number, tag: number) =>
    `${decode?.([at(row.ids, token)]) ?? token} ${named(classes, tag)}`;
  return [
    wrong.map(({ token, said: mine }) => textOf(token, mine)).join(", "),
    wrong.map(({ token, tag }) => textOf(token, tag)).join(", "),
  ];
}

/** What was said of an example and what is right, as texts. */
function texts(
  { example, answer }: Answered,
  { classes }: AnswerNames,
  decode: Decode,
): readonly [said: string, right: readonly string[]] {
  if (typeof answer === "string")
    return [
      answer || "(no answer)",
      "answers" in example && example.answers.length > 0 ? example.answers : ["(none)"],
    ];
  if (typeof answer === "number") {
    if (example.kind === "regress") return [answer.toFixed(3), [String(example.label)]];
    if (example.kind === "choose" && decode)
      return [decode(at(example.rows, answer).ids), [decode(at(example.rows, example.label).ids)]];
    return [named(classes, answer), [named(classes, example.label)]];
  }
  if (example.kind === "mark") return [listedMarks(answer, classes), [listedMarks(example.marks, classes)]];
  if (example.kind !== "tag") return [answer.join(), []];
  const [said, right] = tagTexts(example, answer, classes, decode);
  return [said, [right]];
}

/** How wrong an answer is: 0 where it is right. */
function error({ example, answer }: Answered): number {
  if (example.kind === "regress") return Math.abs(Number(answer) - example.label);
  if (typeof answer === "number") return Number(answer !== example.label);
  if (typeof answer === "string") return Number(!("answers" in example && isOneOf(answer, example.answers)));
  const right = example.kind === "mark" ? example.marks : tagsOf(example);
  return Number(answer.join() !== right.join());
}

const tagsOf = (example: EncodedExample): readonly number[] =>
  example.kind === "tag" ? example.tags.filter((tag) => tag >= 0) : [];

const isOneOf = (said: Said, answers: readonly string[]): boolean =>
  answers.length === 0 ? said === "" : answers.some((one) => one === said);

/** The first examples of a task that were answered wrongly; of numbers, those furthest off. */
export function wrongAnswers(task: AnsweredTask, count: number, decode: Decode): GeneratedText[] {
  const wrong = task.answered.map((one) => ({ one, off: error(one) })).filter(({ off }) => off > 0);
  if (task.answered[0]?.example.kind === "regress") wrong.sort((a, b) => b.off - a.off);
  return wrong.slice(0, count).map(({ one }) => {
    const [said, right] = texts(one, task, decode);
    return { task: task.id, prompt: rowText(at(one.example.rows, 0), decode), said, right };
  });
}

/** An answer as a program reads it: names of classes (of every word, of labels that hold), a number, or a text. */
export type PlainAnswer = string | number | readonly string[];

/** What was said of an example. Of a choice: the number of its ending. */
export function plainAnswer({ example, answer }: Answered, { classes }: AnswerNames): PlainAnswer {
  if (typeof answer === "string") return answer;
  if (typeof answer === "number") return example.kind === "classify" ? named(classes, answer) : answer;
  if (example.kind === "tag") return answer.map((tag) => named(classes, tag));
  return namesOfMarks(answer, classes);
}

/** How a class was answered. */
export interface ClassScore {
  readonly name: string;
  readonly precision: number;
  readonly recall: number;
  readonly f1: number;
  /** Examples (of tags, words) that are of it. */
  readonly n: number;
}

/** Each class's numbers; none where answers are no classes. */
export function classScores({ answered, classes = [] }: AnsweredTask): ClassScore[] {
  const kind = answered[0]?.example.kind;
  if (kind !== "classify" && kind !== "tag" && kind !== "mark") return [];
  return classes.map((name, one) => {
    const { hits, said, right } = countsIn(answered, one);
    return {
      name,
      precision: ratio(hits, said),
      recall: ratio(hits, right),
      f1: ratio(2 * hits, said + right),
      n: right,
    };
  });
}

/** How often a class was said rightly, said, and right. */
function countsIn(answered: readonly Answered[], one: number): ClassCounts {
  if (answered[0]?.example.kind !== "mark") return countsOf(...classLists(answered), one);
  const [said, right] = listsOf(answered);
  const column = (marks: readonly (readonly number[])[]) => marks.map((row) => at(row, one));
  return countsOf(column(said), column(right), 1);
}
