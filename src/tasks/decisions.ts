/**
 * Every kind of answer as decisions: of a class among several, each. A class of a text is one; of several labels each
 * is one of two; a tagged token is one; of a span its first and its last token are one each, among the tokens of their
 * row. So losses, distillation and Fisher information know decisions alone. A number is none: see {@link isNumber}.
 */
import { fill, reshape, tensor1d, zeros, type Tensor2D } from "@tensorflow/tfjs-core";
import { at, f32 } from "../at.js";
import { cosines, embeddings, type EmbeddingForm } from "../models/embedding.js";
import { logits, type Head } from "../models/layers.js";
import { concatenated, rows } from "../models/ops.js";
import { outputsOfRow } from "../models/outputs.js";
import type { TokenRow } from "../models/types.js";
import { choicesOf, targetsOf, type AnswerKind, type Batch, type EncodedExample } from "./batches.js";

/** Whether what is answered is a number, which has no classes: a cosine is one. */
export const isNumber = (kind: AnswerKind): boolean => kind === "regress" || kind === "similar";

/** Whether something is answered by vectors of texts. */
export const isOfVectors = ({ kind }: { readonly kind: AnswerKind }): boolean =>
  kind === "similar" || kind === "match";

/** How texts become the vectors that a batch is answered by; undefined where it is answered by a head, or by texts. */
const formOf = ({ examples: [first] }: Batch): EmbeddingForm | undefined =>
  first?.kind === "similar" || first?.kind === "match" ? first.form : undefined;

/**
 * A batch's scores: of its task's head; of embedding models, each pair's cosine, or a vector a text.
 * @param features what the model gives of its rows (models/outputs.ts)
 */
export function scoresOf(features: Tensor2D, head: Head | undefined, batch: Batch): Tensor2D {
  const form = formOf(batch);
  if (!form) return logits(features, head, choicesOf(batch));
  const vectors = embeddings(features, batch.rows, form);
  return batch.kind === "similar" ? cosines(vectors) : vectors;
}

/** How many vectors a model gives of a batch's rows: see models/outputs.ts. */
export const outputsOfRows = (given: readonly TokenRow[]): number =>
  given.reduce((sum, row) => sum + outputsOfRow(row), 0);

/** The right class of each of an example's decisions, in order. */
export function rightClasses(example: EncodedExample): readonly number[] {
  if (example.kind === "mark") return example.marks;
  if (example.kind === "tag") return example.tags.filter((tag) => tag >= 0);
  if (example.kind === "span") return example.spans.flat();
  return [example.label];
}

/** Whether a text is to be said, and nobody says which: an expert does. */
export const isUnanswered = (example: EncodedExample): boolean =>
  example.kind === "generate" && example.answers.length === 0;

/** Whether some task has nothing to choose by: its validation examples have no answers. */
export const lackAnswers = (tasks: readonly { readonly validation: readonly EncodedExample[] }[]): boolean =>
  tasks.some(({ validation }) => validation.some(isUnanswered));

/**
 * Whether anything is asked of an example: of a sentence none of whose words has a class nothing is, nor of a
 * conversation that was cut before anything is said.
 */
export const isAsked = (example: EncodedExample): boolean => {
  if (example.kind === "generate") return isUnanswered(example) || targetsOf(at(example.rows, 0)).length > 0;
  return rightClasses(example).length > 0;
};

/** The right class of every decision of a batch, example after example. */
export const batchClasses = ({ examples }: Batch): number[] =>
  examples.flatMap((example) => [...rightClasses(example)]);

/** What the mean of a batch's loss is over: its decisions, or, where texts are to be said, their tokens. */
export function lossWeight({ kind, examples, rows: given }: Batch): number {
  if (kind === "generate") return given.reduce((sum, row) => sum + targetsOf(row).length, 0);
  return examples.reduce((sum, example) => sum + rightClasses(example).length, 0);
}

/** Scores beside a span's row, which has fewer tokens than others. Large enough that its probability is 0. */
const nothing = -1e9;

/** Indices of the tagged tokens among all tokens of a batch. */
function taggedTokens({ examples }: Batch): Int32Array {
  const found: number[] = [];
  let start = 0;
  for (const example of examples) {
    const tags = example.kind === "tag" ? example.tags : [];
    for (const [token, tag] of tags.entries()) if (tag >= 0) found.push(start + token);
    start += tags.length;
  }
  return Int32Array.from(found);
}

/**
 * Scores of first and last tokens, [tokens, 2], as two lines a row, as long as the longest row: [2 · rows, longest].
 */
function spanScores(scores: Tensor2D, given: readonly TokenRow[]): Tensor2D {
  const [tokens] = scores.shape;
  const longest = Math.max(...given.map(({ ids }) => ids.length));
  const places = new Int32Array(2 * given.length * longest).fill(2 * tokens);
  let start = 0;
  for (const [r, { ids }] of given.entries()) {
    for (const side of [0, 1])
      for (let i = 0; i < ids.length; i++) places[(2 * r + side) * longest + i] = 2 * (start + i) + side;
    start += ids.length;
  }
  const all = concatenated([reshape(scores, [-1, 1]), fill([1, 1], nothing)], 0);
  return reshape(rows(all, tensor1d(places, "int32")), [-1, longest]);
}

/**
 * A batch's decisions, [decisions, classes]: softmax of a row is what the model holds likely.
 * @param scores of the task's head (models/layers.ts): a row an example, or a token where tokens are asked for
 */
export function decisions(scores: Tensor2D, batch: Batch): Tensor2D {
  if (batch.kind === "tag") return rows(scores, tensor1d(taggedTokens(batch), "int32"));
  if (batch.kind === "span") return spanScores(scores, batch.rows);
  if (batch.kind === "mark") {
    // The sigmoid of z is the softmax of 0 and z.
    return concatenated([zeros([scores.size, 1]), reshape(scores, [-1, 1])], 1);
  }
  return scores;
}

/** An example's decisions on the host: the scores of each one's classes. */
export interface Decided {
  readonly example: EncodedExample;
  readonly decisions: readonly Float32Array[];
}

/** One row's scores of first and last tokens, [tokens, 2], as two lists. */
const sides = (values: Float32Array): Float32Array[] =>
  [0, 1].map((side) => values.filter((_, i) => i % 2 === side));

/** The decisions of one example. @param values its scores, `width` a row */
function decisionsIn(example: EncodedExample, values: Float32Array, width: number): Float32Array[] {
  const row = (i: number) => values.subarray(i * width, (i + 1) * width);
  if (example.kind === "mark") return Array.from(values, (z) => Float32Array.of(0, z));
  if (example.kind === "tag")
    return [...example.tags.keys()].filter((token) => at(example.tags, token) >= 0).map(row);
  if (example.kind === "match") return [...example.rows.keys()].map(row);
  if (example.kind !== "span") return [values];
  let start = 0;
  return example.rows.flatMap(({ ids }) => {
    const own = values.subarray(2 * start, 2 * (start + ids.length));
    start += ids.length;
    return sides(own);
  });
}

/** How many rows of its batch's scores are an example's. */
function scoreRows({ kind, rows: given }: EncodedExample): number {
  if (kind === "choose" || kind === "similar") return 1;
  return kind === "match" ? given.length : outputsOfRows(given);
}

/**
 * {@link decisions} on the host, example by example.
 * @param values a batch's scores in rows
 * @param width of a row
 */
export function decided(batch: Batch, values: Float32Array, width: number): Decided[] {
  let start = 0;
  return batch.examples.map((example) => {
    const count = scoreRows(example);
    const own = values.subarray(start * width, (start + count) * width);
    start += count;
    return { example, decisions: decisionsIn(example, own, width) };
  });
}

/** −log softmax(scores)[label], in float64. */
export function negativeLogLikelihood(scores: Float32Array, label: number): number {
  const values = Array.from(scores);
  const top = Math.max(...values);
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0)) - f32(scores, label);
}

/**
 * The experts' probabilities as {@link decisions} has the scores, [decisions, width] in rows; of a number, the
 * number.
 * @throws Error where no expert was asked
 */
export function softTargets({ kind, examples }: Batch, width: number): Float32Array {
  const found: number[] = [];
  for (const { softLabels, rows: given } of examples) {
    if (!softLabels)
      throw new Error("distillation needs the experts' probabilities, and no expert was asked");
    if (kind !== "span") {
      for (const value of softLabels) found.push(value);
      continue;
    }
    let start = 0;
    for (const { ids } of given)
      for (let side = 0; side < 2; side++) {
        for (let i = 0; i < width; i++) found.push(i < ids.length ? (softLabels[start + i] ?? 0) : 0);
        start += ids.length;
      }
  }
  return Float32Array.from(found);
}
