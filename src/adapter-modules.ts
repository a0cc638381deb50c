/**
 * Adapters as training sees them: tensors of their own that stand beside the weights of linear layers, by the layer's
 * module ("encoder.layer.0.output.dense"). What merge/ and finetune/ make of checkpoints, models/ reads.
 */

/** What stands beside a linear layer. */
export interface AdapterModule {
  /** `lora_A` [rank, in], `lora_B` [out, rank] and `lora_d` [rank] are there: y += ((x Aᵀ) ⊙ d) Bᵀ. */
  readonly lora?: boolean | undefined;
  /** `ia3_l` is there, and multiplies what goes in ([in]) or what comes out ([out]). */
  readonly ia3?: "in" | "out" | undefined;
}

/** The same with its tensors. */
export interface ShapedAdapterModule extends AdapterModule {
  readonly shapes: readonly (readonly [name: string, shape: readonly number[]])[];
}

/** By module. */
export type AdapterModules = ReadonlyMap<string, ShapedAdapterModule>;

/**
 * Whether a module with a matrix is one that models do not read as a linear layer of theirs, but as a table, a
 * convolution or an output layer: nothing can stand beside it, what an adapter adds must be in it.
 */
export const isNoLinearLayer = (module: string): boolean =>
  /embeddings|embed_positions/.test(module) ||
  /(^|\.)(lm_head|shared|embed_tokens|wte|wpe|projection|patch_embedding|relative_attention_bias)$/.test(
    module,
  );
