import { shapesOfBlocks } from "./dense.js";
import type { AdapterModule, Model } from "./types.js";

/** What stands beside a model's linear layers, by module, with the shapes of its tensors. */
export type AdapterModules = ReadonlyMap<
  string,
  AdapterModule & { readonly shapes: readonly (readonly [name: string, shape: readonly number[]])[] }
>;

/** A model whose linear layers have adapters beside them: its blocks read their tensors too. */
export function withAdapters<State, Batch>(
  model: Model<State, Batch>,
  adapters: AdapterModules,
): Model<State, Batch> {
  const blocks = model.blocks.map((block) => {
    const added = [...block.shapes.keys()].flatMap(
      (name) => adapters.get(name.replace(/\.weight$/, ""))?.shapes ?? [],
    );
    if (added.length === 0) return block;
    return { ...block, shapes: new Map([...block.shapes, ...added]) };
  });
  return { ...model, blocks, parameters: shapesOfBlocks(blocks), adapters };
}
