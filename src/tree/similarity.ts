/** Cosines between the task vectors of k experts: rows of a symmetric k × k matrix. */
export type Similarity = readonly (readonly number[])[];

/** Gram matrix (row after row) → cosines. An expert that changes nothing here is similar to nobody, and to itself. */
export function cosines(gram: readonly number[]): Similarity {
  const k = Math.sqrt(gram.length);
  const norm = (i: number) => Math.sqrt(gram[i * k + i]!);
  return Array.from({ length: k }, (_, i) =>
    Array.from({ length: k }, (__, j) => {
      if (i === j) return 1;
      const scale = norm(i) * norm(j);
      return scale > 0 ? gram[i * k + j]! / scale : 0;
    }),
  );
}

/** The whole model's Gram matrix: the sum of its layers'. */
export const totalGram = (grams: readonly { readonly gram: readonly number[] }[]): number[] =>
  grams.map(({ gram }) => [...gram]).reduce((a, b) => a.map((x, i) => x + b[i]!));
