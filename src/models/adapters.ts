import type { AdapterModules } from "../adapter-modules.js";
import { shapesOfBlocks } from "./layers.js";
import type { Model } from "./types.js";

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
