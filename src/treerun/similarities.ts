import { digest } from "../checkpoint/files.js";
import type { MergeHooks } from "../config/options.js";
import { similarityFile } from "../folder/tree-files.js";
import type { Inputs } from "../inputs/open.js";
import { gramMatrices, type LayerGram } from "../merge/gram.js";
import { loadTaskVectors } from "../merge/vectors.js";
import { version } from "../package.js";
import { cosines, totalGram, type Similarity } from "../tree/similarity.js";

/** Similarities as nodes are grouped by, and as the report shows them. */
export interface Similarities {
  readonly tasks: readonly string[];
  readonly whole: Similarity;
  readonly layers: readonly { readonly layer: string; readonly cosines: Similarity }[];
}

/**
 * Inner products of all task vectors, a layer at a time. Of adapters it takes their products: what stands
 * beside the weights says nothing of how alike they are.
 */
async function taskVectorGrams(inputs: Inputs, hooks: Pick<MergeHooks, "progress">): Promise<LayerGram[]> {
  const { family, columns, plain, model, vectors } = inputs;
  const progress = (done: number, of: number) => hooks.progress("similarity of task vectors", done, of);
  if (model === plain) return gramMatrices(vectors, progress);
  const products = await loadTaskVectors({ base: family.base, columns }, [...plain.parameters.keys()], {
    residency: "disk",
    tables: plain.tables,
  });
  try {
    return await gramMatrices(products, progress);
  } finally {
    products.dispose();
  }
}

/** Similarities of all task vectors, from a file of an earlier run with the same inputs, or in one pass. */
export async function similarities(
  out: string,
  inputs: Inputs,
  hooks: Pick<MergeHooks, "progress">,
): Promise<Similarities & { readonly identity: string }> {
  const { experts, layers } = inputs.vectors;
  const identity = digest({
    version,
    hashes: inputs.hashes,
    tasks: experts,
    layers: layers.map(({ id }) => id),
  });
  const saved = await similarityFile.readIfSound(out);
  if (saved?.identity === identity && saved.whole.length === inputs.tasks.length) return saved;
  const grams = await taskVectorGrams(inputs, hooks);
  return {
    identity,
    tasks: experts,
    whole: cosines(totalGram(grams)),
    layers: grams.map(({ layer, gram }) => ({ layer, cosines: cosines(gram) })),
  };
}
