import { argMax, dispose, tidy, type Tensor } from "@tensorflow/tfjs-core";
import { UserError } from "../errors.js";
import { emptyKvCache, type GrowingKvCache } from "../models/kv-cache.js";
import type { Model, Generation, TokenRow } from "../models/types.js";
import { stagesOf } from "../stages/stages.js";
import { openStage, type StageWeights } from "../stages/weights.js";
import { tokensAPass } from "../tasks/batches.js";
import type { Merge } from "./merge.js";

type GenerativeModel = Model & { readonly generation: Generation };

/** What is thrown where a model is asked for a text and has none. */
export const saysNothing = (): UserError =>
  new UserError(
    "this model says nothing: texts are made by language models (T5, Llama, Mistral, Qwen2, " +
      "GPT-2, OPT), not by models with task heads",
  );

/** @throws UserError where a model says nothing */
export function generativeModel(model: Model): GenerativeModel {
  const { generation } = model;
  if (!generation) throw saysNothing();
  return { ...model, generation };
}

/**
 * Rows, in order, that are read and said together: no more tokens than `most`, or one row. A row that
 * the model's places end stands alone: it stops early, and nobody with it.
 */
function together(rows: readonly TokenRow[], more: number, most: number, places: number): TokenRow[][] {
  const groups: TokenRow[][] = [];
  let room = -1;
  for (const row of rows) {
    const tokens = row.ids.length + more;
    const tight = row.ids.length + more > places + 1;
    if (tight || tokens > room) {
      groups.push([]);
      room = most;
    }
    groups.at(-1)!.push(row);
    room = tight ? -1 : room - tokens;
  }
  return groups;
}

/**
 * What a merge goes on to say after each row's `ids`, greedily: always the likeliest token, until it
 * says an end or has said `most`. The end is not among what is returned. A model that knows only so
 * many places stops there.
 *
 * Every token is read once: keys and values of what has been read are remembered. Device memory: the
 * merged weights, tables included, and for some rows at a time two arrays a layer of [tokens, width of
 * the keys]. By blocks, a block's weights are made anew for every token: it fits wherever the model
 * runs, and takes its time.
 */
export async function generate(
  { model, vectors, table, blockwise = false, microBatch = tokensAPass }: Merge,
  rows: readonly TokenRow[],
  most: number,
): Promise<number[][]> {
  // What it will say is not known yet, so which rows of a table it will read is not either.
  const generative: GenerativeModel = { ...generativeModel(model), tables: new Set() };
  const stages = stagesOf(generative, blockwise);
  const open = (s: number) => openStage(generative, vectors, table, stages[s]!, []);
  const held = blockwise ? undefined : await open(0);
  try {
    const said: number[][] = [];
    for (const group of together(
      rows,
      most,
      microBatch,
      generative.scores === "decoder" ? generative.maxLength : Infinity,
    ))
      said.push(
        ...(await generateRows(generative, group, most, {
          stages: stages.length,
          open: held ? () => Promise.resolve(held) : open,
        })),
      );
    return said;
  } finally {
    held?.dispose();
  }
}

/** How a model's stages are opened. */
interface Opening {
  readonly stages: number;
  /** A stage's weights; where there is one stage alone, they are the caller's to dispose of. */
  open(stage: number): Promise<StageWeights>;
}

async function generateRows(
  model: GenerativeModel,
  rows: readonly TokenRow[],
  most: number,
  { stages, open }: Opening,
): Promise<number[][]> {
  const { generation } = model;
  const first = model.prepare(rows.map(({ ids, types }) => ({ ids, types })));
  const room =
    model.scores === "decoder"
      ? model.maxLength - Math.max(...rows.map(({ ids }) => ids.length)) + 1
      : Infinity;
  const said = rows.map((): number[] => []);
  const over = rows.map(() => false);
  const cache = emptyKvCache(generation.window);
  try {
    let batch = first;
    for (let step = 0; step < Math.min(most, room); step++) {
      const next = await pass(model, batch, cache, { from: step === 0 ? 0 : generation.from, stages, open });
      for (const [r, id] of next.entries()) {
        over[r] ||= generation.ends.includes(id);
        if (!over[r]) said[r]!.push(id);
      }
      if (over.every(Boolean)) break;
      batch = generation.follow(first, [...next], step);
    }
    return said;
  } finally {
    cache.dispose();
  }
}

/** The likeliest next token of every row, when the blocks from one on have read a batch. */
async function pass(
  model: GenerativeModel,
  batch: unknown,
  cache: GrowingKvCache,
  { from, stages, open }: { from: number } & Opening,
): Promise<Int32Array> {
  cache.read(model.generation.side(batch));
  const groups = stages === 1 ? [model.blocks.slice(from)] : model.blocks.slice(from).map((block) => [block]);
  let carried: Tensor[] = [];
  for (const [g, blocks] of groups.entries()) {
    const opened = await open(stages === 1 ? 0 : from + g);
    try {
      const before = carried;
      carried = tidy(() => {
        const start = model.start(batch, cache);
        const end = blocks.reduce(
          (state, block) => block.run(opened.weights, state),
          g === 0 ? start : model.carry(start, before),
        );
        return g === groups.length - 1 ? [argMax(model.features(end), -1)] : model.carried(end);
      });
      dispose(before.filter((t) => !carried.includes(t)));
    } finally {
      if (stages > 1) opened.dispose();
    }
  }
  const [next] = carried;
  try {
    return (await next!.data()) as Int32Array;
  } finally {
    next!.dispose();
  }
}
