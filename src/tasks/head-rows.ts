/** Examples for a model with heads, by the kind of their answers. */
import { at } from "../at.js";
import type { EmbeddingForm } from "../models/embedding.js";
import type { TokenRow } from "../models/types.js";
import { longestOf, ranked, type EncodedExample, type LabelKind } from "./batches.js";
import type { Encoder } from "./encoders.js";
import type { Example, SpanAnswer } from "./examples.js";
import type { Task } from "./registry.js";
import type { ContextWindow, TextTokenizer } from "./tokenize.js";

/** How a model with a head answers, by the kind of a task; a text to be said it does not. */
const headAnswers = {
  single: "classify",
  pair: "classify",
  image: "classify",
  choice: "choose",
  regression: "regress",
  "multi-label": "mark",
  tokens: "tag",
  span: "span",
  similarity: "similar",
  retrieval: "match",
} as const;

/** Whether a task is answered by vectors of whole texts, which need no head. */
export const isEmbedded = ({ kind }: Pick<Task, "kind">): boolean =>
  kind === "similarity" || kind === "retrieval";

function headAnswer({ id, kind }: Task): (typeof headAnswers)[keyof typeof headAnswers] {
  if (kind !== "generate" && kind !== "chat") return headAnswers[kind];
  throw new Error(`${id}: a model with a head says no text`);
}

/**
 * Texts for a model with heads: one row, or one an ending, or a window; for vectors, a row a text.
 * @param form how texts become vectors; it throws where the model's folder does not say so
 */
export const textRows = (tokenizer: TextTokenizer, form: () => EmbeddingForm = noForm): Encoder => ({
  input: "text",
  vocabulary: tokenizer.vocabulary,
  encode: (example, task) => {
    const kind = headAnswer(task);
    if (kind !== "similar" && kind !== "match") return [encodeForHead(example, tokenizer, kind)];
    const rows = example.texts.map((text): TokenRow => ({ ...tokenizer.encode(text), everyToken: true }));
    return [{ kind, rows, label: example.label, length: longestOf(rows), form: form() }];
  },
  answering: (task) => ({ kind: headAnswer(task) }),
  text: tokenizer.text,
  speaks: false,
});

/** Examples for a model with heads: {@link textRows}. */
export const encodeExamples = (
  examples: readonly Example[],
  tokenizer: TextTokenizer,
  kind: LabelKind,
): EncodedExample[] => examples.map((example) => encodeForHead(example, tokenizer, kind));

function noForm(): never {
  throw new Error("nothing says how this model's tokens become one vector");
}

function encodeForHead(
  example: Example,
  tokenizer: TextTokenizer,
  kind: Exclude<(typeof headAnswers)[keyof typeof headAnswers], "similar" | "match">,
): EncodedExample {
  if (example.kind === "tag") return tagRow(example, tokenizer);
  if (example.kind === "span") return spanRows(example, tokenizer);
  const rows = example.texts.map((text) => tokenizer.encode(text));
  if (example.kind === "mark")
    return { kind: "mark", rows, label: 0, length: longestOf(rows), marks: example.marks };
  if (kind === "mark" || kind === "tag" || kind === "span")
    throw new Error(`an example of a ${example.kind} is no ${kind}`);
  return ranked(kind, rows, example);
}

/** Words as one row; each word's class is asked of its first token. */
function tagRow({ words, tags }: Example & { kind: "tag" }, tokenizer: TextTokenizer): EncodedExample {
  const { firstOf, ...row } = tokenizer.encodeWords(words);
  const tagOf = new Map(firstOf.map((token, word) => [token, at(tags, word)]));
  return {
    kind: "tag",
    rows: [{ ...row, everyToken: true }],
    label: 0,
    length: row.ids.length,
    tags: row.ids.map((_, token) => tagOf.get(token) ?? -1),
  };
}

/** An answer's first character and the one after its last, without spaces around it. */
function boundsOf({ text, start }: SpanAnswer): readonly [start: number, end: number] {
  const before = text.length - text.trimStart().length;
  return [start + before, start + Math.max(before, text.trimEnd().length)];
}

/**
 * The first and last token of window i that an answer is of; [0, 0] where it is not whole in it. At the context's own
 * ends, characters of no token are the window's too.
 */
function spanIn(windows: readonly ContextWindow[], i: number, answer: SpanAnswer): [number, number] {
  const {
    within: [from],
    characters,
  } = at(windows, i);
  const [start, end] = boundsOf(answer);
  const isBefore = i > 0 && start < (characters[0]?.[0] ?? 0);
  const isBehind = i < windows.length - 1 && end > (characters.at(-1)?.[1] ?? 0);
  const first = characters.findIndex((one) => one[1] > start);
  const last = characters.findLastIndex((one) => one[0] < end && one[1] > one[0]);
  if (isBefore || isBehind || first < 0 || last < first) return [0, 0];
  return [from + first, from + last];
}

/** A question with its context, a row a window. What is right is the first answer; a window without it says [0, 0]. */
function spanRows(
  { question, context, answers }: Example & { kind: "span" },
  tokenizer: TextTokenizer,
): EncodedExample {
  const windows = tokenizer.encodeWindows(question, context);
  const [answer] = answers;
  const rows = windows.map(({ ids, types }): TokenRow => ({ ids, types, everyToken: true }));
  return {
    kind: "span",
    rows,
    label: 0,
    length: longestOf(rows),
    spans: windows.map((_, i) => (answer ? spanIn(windows, i, answer) : [0, 0])),
    within: windows.map(({ within }) => within),
    answers: answers.map(({ text }) => text),
    text(row, first, last) {
      const { characters, within } = at(windows, row);
      return context.slice(at(characters, first - within[0])[0], at(characters, last - within[0])[1]).trim();
    },
  };
}
