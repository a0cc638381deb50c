/**
 * Metrics as scikit-learn (accuracy, F1, Matthews), SciPy (Pearson, Spearman), seqeval (entities), SQuAD's script
 * (spans) and rouge-score compute them: fractions; correlations lie within −1 and 1.
 */
import { at, lookUp } from "../at.js";
import { mean } from "../report/rows.js";
import { normalised } from "./exact.js";

type Labels = readonly number[];

/** 0 where nothing is there to be counted, as scikit-learn has it. */
export const ratio = (part: number, of: number): number => (of === 0 ? 0 : part / of);

export const accuracy = (said: Labels, right: Labels): number =>
  ratio(said.filter((one, i) => one === right[i]).length, right.length);

/** Of a class: how often it was said rightly, said, and right. */
export interface ClassCounts {
  readonly hits: number;
  readonly said: number;
  readonly right: number;
}

export const countsOf = (said: Labels, right: Labels, one: number): ClassCounts => ({
  hits: said.filter((label, i) => label === one && right[i] === one).length,
  said: said.filter((label) => label === one).length,
  right: right.filter((label) => label === one).length,
});

const f1Of = ({ hits, said, right }: ClassCounts): number => ratio(2 * hits, said + right);

const together = (all: readonly ClassCounts[]): ClassCounts =>
  all.reduce(
    (sum, { hits, said, right }) => ({
      hits: sum.hits + hits,
      said: sum.said + said,
      right: sum.right + right,
    }),
    { hits: 0, said: 0, right: 0 },
  );

/** F1 of one class of two. */
export const binaryF1 = (said: Labels, right: Labels, positive: number): number =>
  f1Of(countsOf(said, right, positive));

/** The mean of the F1 of every class that was said or is right. */
export function macroF1(said: Labels, right: Labels): number {
  const classes = [...new Set([...said, ...right])];
  return mean(classes.map((one) => f1Of(countsOf(said, right, one))));
}

/** F1 of all classes counted together. */
export function microF1(said: Labels, right: Labels): number {
  const classes = [...new Set([...said, ...right])];
  return f1Of(together(classes.map((one) => countsOf(said, right, one))));
}

/** Matthews' correlation, of any number of classes (Gorodkin 2004); 0 where one side has one class alone. */
export function matthews(said: Labels, right: Labels): number {
  const classes = [...new Set([...said, ...right])].map((one) => countsOf(said, right, one));
  const n = right.length;
  const squares = (side: "said" | "right") => classes.reduce((sum, counts) => sum + counts[side] ** 2, 0);
  const hits = classes.reduce((sum, counts) => sum + counts.hits, 0);
  const both = classes.reduce((sum, counts) => sum + counts.said * counts.right, 0);
  const spread = (n ** 2 - squares("said")) * (n ** 2 - squares("right"));
  return ratio(hits * n - both, Math.sqrt(spread));
}

/** Pearson's correlation; 0 where one side is constant. */
export function pearson(x: Labels, y: Labels): number {
  // Their differences from a rounded mean need not be 0.
  if ([x, y].some((values) => values.every((value) => value === values[0]))) return 0;
  const [mx, my] = [mean(x), mean(y)];
  const product = (a: Labels, ma: number, b: Labels, mb: number) =>
    a.reduce((sum, value, i) => sum + (value - ma) * (at(b, i) - mb), 0);
  return ratio(product(x, mx, y, my), Math.sqrt(product(x, mx, x, mx) * product(y, my, y, my)));
}

/** The rank of each value; equal values share the mean of theirs. */
function ranks(values: Labels): number[] {
  const places = new Map<number, number[]>();
  for (const [rank, value] of [...values].sort((a, b) => a - b).entries())
    places.set(value, [...(places.get(value) ?? []).slice(0, 1), rank]);
  // Of equal values, the first place and the last.
  return values.map((value) => mean(lookUp(places, value)));
}

export const spearman = (x: Labels, y: Labels): number => pearson(ranks(x), ranks(y));

/** Every label's column of examples' marks. */
const columns = (marks: readonly Labels[]): number[][] =>
  at(marks, 0).map((_, label) => marks.map((row) => at(row, label)));

const markCounts = (said: readonly Labels[], right: readonly Labels[]): ClassCounts[] => {
  const rightColumns = columns(right);
  return columns(said).map((column, label) => countsOf(column, at(rightColumns, label), 1));
};

/** Of several labels: the mean of each label's F1. */
export const macroF1OfMarks = (said: readonly Labels[], right: readonly Labels[]): number =>
  mean(markCounts(said, right).map(f1Of));

/** Of several labels: F1 of all counted together. */
export const microF1OfMarks = (said: readonly Labels[], right: readonly Labels[]): number =>
  f1Of(together(markCounts(said, right)));

/** How many examples have every label right. */
export const exactMarks = (said: readonly Labels[], right: readonly Labels[]): number =>
  mean(said.map((one, i) => Number(one.join() === at(right, i).join())));

/** A tag's sign and the kind of entity that it is of. */
function tagParts(tag: string): { readonly sign: string; readonly kind: string } {
  const [, sign = "O", kind = ""] = /^([BIESLU])-(.*)$/.exec(tag) ?? [];
  return { sign: { L: "E", U: "S" }[sign] ?? sign, kind };
}

/** Entities of a sequence of tags as "kind from to", as conlleval and seqeval find them. */
function entitiesIn(tags: readonly string[]): string[] {
  const found: string[] = [];
  let before = tagParts("O");
  let from = 0;
  for (const [i, tag] of [...tags, "O"].entries()) {
    const now = tagParts(tag);
    const isOther = now.kind !== before.kind;
    const ends =
      "ES".includes(before.sign) ||
      ("BI".includes(before.sign) && "BSO".includes(now.sign)) ||
      (before.sign !== "O" && isOther);
    const starts =
      "BS".includes(now.sign) ||
      ("ESO".includes(before.sign) && "EI".includes(now.sign)) ||
      (now.sign !== "O" && isOther);
    if (ends) found.push(`${before.kind} ${from} ${i}`);
    if (starts) from = i;
    before = now;
  }
  return found;
}

/** F1 of whole entities over all sequences. */
export function entityF1(
  said: readonly (readonly string[])[],
  right: readonly (readonly string[])[],
): number {
  const counts = said.map((tags, i): ClassCounts => {
    const [mine, theirs] = [entitiesIn(tags), entitiesIn(at(right, i))];
    return { hits: shared(mine, theirs), said: mine.length, right: theirs.length };
  });
  return f1Of(together(counts));
}

/** How many of some items two lists share, each as often as both have it. */
function shared(a: readonly string[], b: readonly string[]): number {
  const left = new Map<string, number>();
  for (const item of b) left.set(item, (left.get(item) ?? 0) + 1);
  let count = 0;
  for (const item of a) {
    const more = left.get(item) ?? 0;
    if (more > 0) count++;
    left.set(item, more - 1);
  }
  return count;
}

const f1OfLists = (a: readonly string[], b: readonly string[], common: number): number =>
  ratio(2 * common, a.length + b.length);

const wordsOf = (text: string): string[] => text.split(" ").filter((word) => word !== "");

/** F1 of two texts' words, as SQuAD counts it: texts without words are alike where both are. */
function wordF1(said: string, answer: string): number {
  const [a, b] = [wordsOf(normalised(said)), wordsOf(normalised(answer))];
  if (a.length === 0 || b.length === 0) return Number(a.length === b.length);
  return f1OfLists(a, b, shared(a, b));
}

/** The best over the right answers; without any, the empty one is right. */
const best = (answers: readonly string[], score: (answer: string) => number): number =>
  Math.max(...(answers.length > 0 ? answers : [""]).map(score));

/** A text's words against the right answer that it is closest to. */
export const spanF1 = (said: string, answers: readonly string[]): number =>
  best(answers, (answer) => wordF1(said, answer));

/** Whether a text is one of the right answers ({@link normalised}); without any, whether it is empty. */
export const exactMatch = (said: string, answers: readonly string[]): number =>
  best(answers, (answer) => Number(normalised(said) === normalised(answer)));

const rougeWords = (text: string): string[] => wordsOf(text.toLowerCase().replace(/[^a-z0-9]+/g, " "));

/** Runs of n words. */
const wordRuns = (words: readonly string[], n: number): string[] =>
  words.slice(0, Math.max(0, words.length - n + 1)).map((_, i) => words.slice(i, i + n).join(" "));

/** ROUGE-1 or ROUGE-2: F1 of runs of n words (Lin 2004), the best over the answers. */
export const rouge = (said: string, answers: readonly string[], n: number): number =>
  best(answers, (answer) => {
    const [a, b] = [wordRuns(rougeWords(said), n), wordRuns(rougeWords(answer), n)];
    return f1OfLists(a, b, shared(a, b));
  });

/** The length of the longest list of words that two lists have in the same order. */
function longestCommon(a: readonly string[], b: readonly string[]): number {
  let before = [0, ...b.map(() => 0)];
  for (const word of a) {
    const row = [0];
    for (const [j, other] of b.entries())
      row.push(word === other ? at(before, j) + 1 : Math.max(at(before, j + 1), at(row, j)));
    before = row;
  }
  return at(before, -1);
}

/** ROUGE-L: F1 of the longest common subsequence of words, the best over the answers. */
export const rougeL = (said: string, answers: readonly string[]): number =>
  best(answers, (answer) => {
    const [a, b] = [rougeWords(said), rougeWords(answer)];
    return f1OfLists(a, b, longestCommon(a, b));
  });

/**
 * nDCG of the first k of a ranking, mean over searches: 1 / log2(rank + 1) of every right text among them, over what
 * the best ranking has. @param ranks of each search, where its right texts are, from 1
 */
export function ndcg(ranks: readonly (readonly number[])[], k: number): number {
  const gain = (places: readonly number[]): number =>
    places.filter((rank) => rank <= k).reduce((sum, rank) => sum + 1 / Math.log2(rank + 1), 0);
  return mean(ranks.map((places) => gain(places) / gain(places.map((_, i) => i + 1))));
}

/** 1 / the rank of the first right text, 0 where it is not among the first k; mean over searches. */
export const reciprocalRank = (ranks: readonly (readonly number[])[], k: number): number =>
  mean(ranks.map((places) => (Math.min(...places) <= k ? 1 / Math.min(...places) : 0)));

/** How many searches have a right text among the first k. */
export const foundWithin = (ranks: readonly (readonly number[])[], k: number): number =>
  mean(ranks.map((places) => Number(Math.min(...places) <= k)));
