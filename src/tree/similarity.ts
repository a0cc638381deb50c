import { at } from "../at.js";

/** Cosines between the task vectors of k experts: rows of a symmetric k × k matrix. */
export type Similarity = readonly (readonly number[])[];

/** Gram matrix (row after row) → cosines. An expert that changes nothing here is similar to nobody, and to itself. */
export function cosines(gram: readonly number[]): Similarity {
  const k = Math.sqrt(gram.length);
  const norms = Array.from({ length: k }, (_, i) => Math.sqrt(at(gram, i * k + i)));
  return norms.map((a, i) =>
    norms.map((b, j) => {
      if (i === j) return 1;
      if (!(a * b > 0)) return 0;
      return at(gram, i * k + j) / (a * b);
    }),
  );
}

/** The whole model's Gram matrix: the sum of its layers'. */
export const totalGram = (grams: readonly { readonly gram: readonly number[] }[]): number[] =>
  grams.map(({ gram }) => [...gram]).reduce((a, b) => a.map((x, i) => x + at(b, i)));
