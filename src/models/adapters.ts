import type { AdapterModules } from "../adapter-modules.js";
import { parametersOf } from "./dense.js";
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
    return added.length ? { ...block, shapes: new Map([...block.shapes, ...added]) } : block;
  });
  return { ...model, blocks, parameters: parametersOf(blocks), adapters };
}
