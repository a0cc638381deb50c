import { blockOf } from "../block-names.js";
import { elements } from "../tensor/dtype.js";

/** What a plan needs to know of a family: shapes alone, from headers and a config. */
export interface FamilyShape {
  readonly tensors: readonly TensorDescription[];
  /** Which tensors run together at the finest: the model's blocks. */
  readonly blocks: readonly { readonly id: string; readonly names: readonly string[] }[];
  readonly experts: number;
  /** Models that a sweep reads beside the base, where that is not one an expert. */
  readonly files?: number | undefined;
  /** The output layer, where it can be run in pieces of the vocabulary: a block of its own. */
  readonly output?: string | undefined;
  /** Trained coefficients. */
  readonly coefficients: number;
  /** Width of the activations between blocks. */
  readonly width: number;
  readonly heads: number;
  /** Arrays of attention's scores that a layer keeps for its backward. Default: one. */
  readonly keptScores?: number | undefined;
}

export interface TensorDescription {
  readonly name: string;
  readonly shape: readonly number[];
  /** Bytes an entry in the file. */
  readonly bytes: number;
  /** Read by rows only: an embedding. */
  readonly table: boolean;
}

/** The work of one step. */
export interface StepShape {
  /** Tokens of all tasks' batches, at most. */
  readonly tokens: number;
  /** Tokens that share a pass. */
  readonly microBatch: number;
  /** Tokens of the longest row. */
  readonly length: number;
}

export const entries = ({ shape }: TensorDescription): number => elements(shape);
export const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** Tensors that look like embeddings, for models that only their header describes. */
const embedding =
  /(^|\.)(shared|wte|wpe|tok_embeddings|\w*embed(ding)?s?(_tokens)?|relative_attention_bias)\.weight$/;

/**
 * A family's shape from a header alone: blocks by their numbers in the names, embeddings by their names.
 * @param config the model's config.json, for its width and number of heads
 */
export function shapeOfHeader(
  header: readonly { readonly name: string; readonly shape: readonly number[]; readonly bytes: number }[],
  config: Readonly<Record<string, unknown>>,
  experts: number,
): FamilyShape {
  const tensors = header.map((tensor) => ({
    ...tensor,
    table: embedding.test(tensor.name) && tensor.shape.length === 2,
  }));
  const blocks = new Map<string, string[]>();
  for (const { name } of tensors) blocks.set(blockOf(name), [...(blocks.get(blockOf(name)) ?? []), name]);
  const number = (...keys: string[]) =>
    keys.map((key) => config[key]).find((value): value is number => typeof value === "number");
  const width =
    number("hidden_size", "d_model", "n_embd") ?? Math.max(...tensors.map(({ shape }) => shape.at(-1) ?? 1));
  return {
    tensors,
    experts,
    width,
    coefficients: tensors.length * experts,
    heads: number("num_attention_heads", "num_heads", "n_head") ?? Math.ceil(width / 64),
    blocks: [...blocks].map(([id, names]) => ({ id, names })),
  };
}
