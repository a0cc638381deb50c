import { parametersOf } from "./dense.js";
import type { Beside, Model } from "./types.js";

/** What stands beside a model's linear layers, by module, with the shapes of its tensors. */
export type BesideModules = ReadonlyMap<
  string,
  Beside & { readonly shapes: readonly (readonly [name: string, shape: readonly number[]])[] }
>;

/** A model whose linear layers have adapters beside them: its blocks read their tensors too. */
export function withAdapters<State, Batch>(
  model: Model<State, Batch>,
  beside: BesideModules,
): Model<State, Batch> {
  const blocks = model.blocks.map((block) => {
    const added = [...block.shapes.keys()].flatMap(
      (name) => beside.get(name.replace(/\.weight$/, ""))?.shapes ?? [],
    );
    return added.length ? { ...block, shapes: new Map([...block.shapes, ...added]) } : block;
  });
  return { ...model, blocks, parameters: parametersOf(blocks), beside };
}
