/** What a model's scores say of an example, and how good that is: by the kind of answer. */
import { at, f32 } from "../at.js";
import { mean } from "../report/rows.js";
import { batchLabels, type Batch, type EncodedExample } from "../tasks/batches.js";
import {
  decided,
  isNumber,
  lossWeight,
  negativeLogLikelihood,
  rightClasses,
  type Decided,
} from "../tasks/decisions.js";
import type { MetricName } from "../tasks/metrics.js";
import { isRightExpression, isRightNumber } from "./maths.js";
import * as metrics from "./metrics.js";
import { search, type Embedded } from "./vectors.js";

/** A class, a row or a number; classes; or a text. */
export type Said = number | readonly number[] | string;

export interface Answered {
  readonly example: EncodedExample;
  readonly answer: Said;
}

const argMax = (scores: Float32Array): number => scores.indexOf(Math.max(...scores));

/** The most tokens that a span has, as SQuAD's script takes it. */
const longestSpan = 30;

/** The span of a row with the highest score: no longer than {@link longestSpan}, within its context. */
function bestSpan(
  starts: Float32Array,
  ends: Float32Array,
  [from, to]: readonly [number, number],
): { readonly first: number; readonly last: number; readonly score: number } {
  let best = { first: from, last: from, score: -Infinity };
  for (let first = from; first < to; first++)
    for (let last = first; last < Math.min(to, first + longestSpan); last++) {
      const score = f32(starts, first) + f32(ends, last);
      if (score > best.score) best = { first, last, score };
    }
  return best;
}

/**
 * The answer of all windows with the highest score, as SQuAD's script finds it.
 * @param mayLack whether there may be none (""): there is none where every window's first token scores higher
 */
function spanAnswer(
  example: EncodedExample & { kind: "span" },
  { decisions }: Decided,
  mayLack: boolean,
): string {
  let best = { text: "", score: -Infinity };
  let none = Infinity;
  for (const [row, within] of example.within.entries()) {
    const [starts, ends] = [at(decisions, 2 * row), at(decisions, 2 * row + 1)];
    none = Math.min(none, f32(starts, 0) + f32(ends, 0));
    const { first, last, score } = bestSpan(starts, ends, within);
    if (score > best.score) best = { text: example.text(row, first, last), score };
  }
  if (mayLack && none > best.score) return "";
  return best.text;
}

/** Whether some examples have no right answer: only then may a model say that there is none. */
export const mayLackAnswers = (examples: readonly EncodedExample[]): boolean =>
  examples.some((example) => example.kind === "span" && example.answers.length === 0);

/** What scores say of an example. Of a text to be said they say nothing: that is generated. */
function answerOf(one: Decided, mayLack: boolean): Said {
  const { example, decisions } = one;
  if (example.kind === "span") return spanAnswer(example, one, mayLack);
  if (example.kind === "tag" || example.kind === "mark") return decisions.map(argMax);
  if (isNumber(example.kind)) return f32(at(decisions, 0), 0);
  return argMax(at(decisions, 0));
}

/** The loss of an example, summed over its decisions; of a number, the squared error. */
function lossOf({ example, decisions }: Decided): number {
  if (isNumber(example.kind)) return (f32(at(decisions, 0), 0) - example.label) ** 2;
  const right = rightClasses(example);
  return decisions.reduce((sum, scores, i) => sum + negativeLogLikelihood(scores, at(right, i)), 0);
}

/** Answers of some examples, and what was lost, summed; the mean is over `over`. */
export interface Tally {
  readonly answered: Answered[];
  /** Of what is answered by vectors: each text's. */
  readonly vectors: Embedded[];
  loss: number;
  over: number;
}

export const emptyTally = (): Tally => ({ answered: [], vectors: [], loss: 0, over: 0 });

/** A batch's scores: in rows of some width. */
export interface BatchScores {
  readonly values: Float32Array;
  readonly width: number;
}

/**
 * Adds a batch's answers to a tally. Texts to be said are lost token by token, and say nothing here: they are
 * generated.
 * @param mayLack see {@link mayLackAnswers}
 */
export function tally(sum: Tally, batch: Batch, { values, width }: BatchScores, mayLack = false): void {
  sum.over += lossWeight(batch);
  if (batch.kind === "generate") {
    sum.loss -= values.reduce((total, value) => total + value, 0);
    return;
  }
  for (const one of decided(batch, values, width)) {
    if (batch.kind === "match") {
      sum.vectors.push({ example: one.example, vectors: one.decisions.map((vector) => vector.slice()) });
      continue;
    }
    sum.answered.push({ example: one.example, answer: answerOf(one, mayLack) });
    sum.loss += lossOf(one);
  }
}

/** What is answered by vectors is answered when all of them are there. */
export function settle(sum: Tally): void {
  if (sum.vectors.length === 0) return;
  const { found, loss } = search(sum.vectors.splice(0));
  sum.answered.push(...found);
  sum.loss += loss;
}

/** What a task's answers are counted by. */
export interface AnswerNames {
  readonly metrics: readonly MetricName[];
  /** Names of its classes in the order of the model's outputs. */
  readonly classes?: readonly string[] | undefined;
  /** The class that F1 of two classes is of. */
  readonly positive?: number | undefined;
}

const numberAnswer = (answer: Said): number => (typeof answer === "number" ? answer : NaN);
const listAnswer = (answer: Said): readonly number[] => (typeof answer === "object" ? answer : []);
const textAnswer = (answer: Said): string => (typeof answer === "string" ? answer : "");
const rightAnswers = (example: EncodedExample): readonly string[] =>
  "answers" in example ? example.answers : [];

/** Texts against their right answers, on average. */
const ofTexts = (
  answered: readonly Answered[],
  score: (said: string, answers: readonly string[]) => number,
): number => mean(answered.map(({ example, answer }) => score(textAnswer(answer), rightAnswers(example))));

/** Of each text that was looked for, once: the ranks of all its partners. */
const ranksOf = (answered: readonly Answered[]): (readonly number[])[] =>
  answered.map(({ answer }) => listAnswer(answer)).filter(({ length }) => length > 0);

type Measure = (answered: readonly Answered[], names: AnswerNames) => number;

/** Of lists of classes (tags, marks): those said, and those that are right. */
export const listsOf = (answered: readonly Answered[]) =>
  [
    answered.map(({ answer }) => listAnswer(answer)),
    answered.map(({ example }) => rightClasses(example)),
  ] as const;

/** Of one class an example, or a class a token: all of them in a row. */
export function classLists(
  answered: readonly Answered[],
): readonly [said: readonly number[], right: readonly number[]] {
  const [said, right] = listsOf(answered);
  if (answered[0]?.example.kind === "tag") return [said.flat(), right.flat()];
  return [
    answered.map(({ answer }) => numberAnswer(answer)),
    batchLabels({ examples: answered.map((one) => one.example) }),
  ];
}

const isMarks = ([first]: readonly Answered[]): boolean => first?.example.kind === "mark";

type Lists = readonly (readonly number[])[];

/** A metric of marks, or of classes. */
function ofKind(
  answered: readonly Answered[],
  ofMarks: (said: Lists, right: Lists) => number,
  ofClasses: (said: readonly number[], right: readonly number[]) => number,
): number {
  if (isMarks(answered)) return ofMarks(...listsOf(answered));
  return ofClasses(...classLists(answered));
}

const measures: Readonly<Record<MetricName, Measure>> = {
  accuracy: (answered) => metrics.accuracy(...classLists(answered)),
  f1: (answered, { positive = 1 }) => metrics.binaryF1(...classLists(answered), positive),
  "f1-macro": (answered) => ofKind(answered, metrics.macroF1OfMarks, metrics.macroF1),
  "f1-micro": (answered) => ofKind(answered, metrics.microF1OfMarks, metrics.microF1),
  matthews: (answered) => metrics.matthews(...classLists(answered)),
  pearson: (answered) => metrics.pearson(...classLists(answered)),
  spearman: (answered) => metrics.spearman(...classLists(answered)),
  "entity-f1": (answered, { classes = [] }) => {
    const named = (lists: readonly (readonly number[])[]) =>
      lists.map((tags) => tags.map((tag) => classes[tag] ?? "O"));
    const [said, right] = listsOf(answered);
    return metrics.entityF1(named(said), named(right));
  },
  "exact-match": (answered) =>
    isMarks(answered) ? metrics.exactMarks(...listsOf(answered)) : ofTexts(answered, metrics.exactMatch),
  "span-f1": (answered) => ofTexts(answered, metrics.spanF1),
  rouge1: (answered) => ofTexts(answered, (said, answers) => metrics.rouge(said, answers, 1)),
  rouge2: (answered) => ofTexts(answered, (said, answers) => metrics.rouge(said, answers, 2)),
  rougeL: (answered) => ofTexts(answered, metrics.rougeL),
  gsm8k: (answered) => ofTexts(answered, (said, answers) => Number(isRightNumber(said, answers))),
  math: (answered) => ofTexts(answered, (said, answers) => Number(isRightExpression(said, answers))),
  "ndcg@10": (answered) => metrics.ndcg(ranksOf(answered), 10),
  "mrr@10": (answered) => metrics.reciprocalRank(ranksOf(answered), 10),
  "accuracy@1": (answered) => metrics.foundWithin(ranksOf(answered), 1),
};

/** Every metric of a task, over all its answers. */
export const measure = (
  answered: readonly Answered[],
  names: AnswerNames,
): Partial<Record<MetricName, number>> =>
  Object.fromEntries(names.metrics.map((name) => [name, measures[name](answered, names)]));

/** Of each example, 1 where its one class or answer is right; undefined where answers are of another kind. */
export function rightMarks(answered: readonly Answered[]): string | undefined {
  const isClass = ({ kind }: EncodedExample) => kind === "classify" || kind === "choose";
  if (answered.length === 0 || !answered.every(({ example }) => isClass(example))) return undefined;
  return answered.map(({ example, answer }) => Number(answer === example.label)).join("");
}
