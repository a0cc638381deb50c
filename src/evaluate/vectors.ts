/** What is answered by vectors: a text's partner is looked for among the partners of all. */
import { at, f32, lookUp } from "../at.js";
import { contrastScale } from "../models/embedding.js";
import type { TokenRow } from "../models/types.js";
import type { EncodedExample } from "../tasks/batches.js";
import { negativeLogLikelihood } from "../tasks/decisions.js";

/** An example's texts as vectors of length 1: a text, its partner, and others that are none. */
export interface Embedded {
  readonly example: EncodedExample;
  readonly vectors: readonly Float32Array[];
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += f32(a, i) * f32(b, i);
  return sum;
}

const keyOf = ({ ids }: TokenRow): string => ids.join(" ");

/** Texts, each once, by their tokens. */
interface Corpus {
  readonly numbers: ReadonlyMap<string, number>;
  readonly vectors: readonly Float32Array[];
}

function corpusOf(all: readonly Embedded[]): Corpus {
  const numbers = new Map<string, number>();
  const vectors: Float32Array[] = [];
  for (const { example, vectors: own } of all)
    for (const [i, row] of example.rows.entries()) {
      const key = keyOf(row);
      if (i === 0 || numbers.has(key)) continue;
      numbers.set(key, vectors.length);
      vectors.push(at(own, i));
    }
  return { numbers, vectors };
}

/** The right texts of every search, by its tokens: a text may have several partners. */
function partnersOf(all: readonly Embedded[], { numbers }: Corpus): Map<string, Set<number>> {
  const found = new Map<string, Set<number>>();
  for (const { example } of all) {
    const [anchor, partner] = [keyOf(at(example.rows, 0)), lookUp(numbers, keyOf(at(example.rows, 1)))];
    found.set(anchor, (found.get(anchor) ?? new Set()).add(partner));
  }
  return found;
}

export interface Found {
  readonly example: EncodedExample;
  /**
   * Ranks of all right texts among every partner and every text that is none, by cosine; of a text that was looked for
   * before, nothing.
   */
  readonly answer: readonly number[];
}

/**
 * Looks for every text's partners. Time: texts × texts.
 * @returns ranks, and the loss summed over examples: the contrast of each one's partner to all texts
 */
export function search(all: readonly Embedded[]): { found: Found[]; loss: number } {
  const corpus = corpusOf(all);
  const partners = partnersOf(all, corpus);
  const seen = new Set<string>();
  let loss = 0;
  const found = all.map(({ example, vectors }): Found => {
    const key = keyOf(at(example.rows, 0));
    const scores = Float32Array.from(corpus.vectors, (vector) => contrastScale * dot(at(vectors, 0), vector));
    loss += negativeLogLikelihood(scores, lookUp(corpus.numbers, keyOf(at(example.rows, 1))));
    if (seen.has(key)) return { example, answer: [] };
    seen.add(key);
    const right = [...lookUp(partners, key)];
    const ranks = right.map((one) => 1 + scores.filter((score) => score > f32(scores, one)).length);
    return { example, answer: distinct(ranks) };
  });
  return { found, loss };
}

/** Ranks, rising; of texts that are alike to the last bit, one behind the other. */
function distinct(ranks: readonly number[]): number[] {
  let last = 0;
  return ranks.toSorted((a, b) => a - b).map((rank) => (last = Math.max(rank, last + 1)));
}
