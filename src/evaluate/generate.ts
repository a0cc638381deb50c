import { argMax, dispose, max, tidy, type Tensor } from "@tensorflow/tfjs-core";
import { at, f32, i32 } from "../at.js";
import { UserError } from "../errors.js";
import { languageModels } from "../models/index.js";
import { emptyKvCache, type GrowingKvCache } from "../models/kv-cache.js";
import type { Generation, Model, OutputBlock, TokenRow } from "../models/types.js";
import { asMatrix } from "../models/layers.js";
import { scoresOf } from "../models/pieces.js";
import { eachPiece, streamedOutput, type OutputPlace } from "../stages/output.js";
import { stagesOf, openStage, type StageWeights } from "../stages/stages.js";
import { groupUpTo, tokensAPass } from "../tasks/batches.js";
import type { Merge } from "./merge.js";

type GenerativeModel = Model & { readonly generation: Generation };

/** What is thrown where a model is asked for a text and has none. */
export const noGeneration = (): UserError =>
  new UserError(
    `this model generates no text: use a language model (${languageModels}) instead of a model with task heads`,
  );

/** @throws UserError where a model generates no text */
export function generativeModel(model: Model): GenerativeModel {
  const { generation } = model;
  if (!generation) throw noGeneration();
  return { ...model, generation };
}

/** The last place that a token can stand at. */
const placesIn = ({ scores, maxLength }: Model): number => (scores === "decoder" ? maxLength : Infinity);

/** How many tokens a model can say behind a row before its places end: a decoder behind an encoder begins anew. */
export const roomBehind = ({ scores, maxLength }: Model, { ids }: TokenRow): number =>
  scores === "decoder" ? maxLength - ids.length + 1 : maxLength;

/**
 * Rows, in order, that are read and said together: no more tokens than `microBatch`, or one row. A row
 * that the model's places end stands alone: it stops early, and nobody with it.
 */
function rowGroups(
  rows: readonly TokenRow[],
  most: number,
  microBatch: number,
  places: number,
): TokenRow[][] {
  return groupUpTo(rows, microBatch, ({ ids }) => {
    const tokens = ids.length + most;
    return tokens > places + 1 ? Infinity : tokens;
  });
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
  const generative = generativeModel(model);
  const stages = stagesOf(generative, blockwise);
  const said: number[][] = [];
  const sayAll = async (opening: Opening) => {
    for (const group of rowGroups(rows, most, microBatch, placesIn(generative)))
      said.push(...(await generateRows(generative, group, most, opening)));
  };
  const place = { model: generative, vectors, table };
  if (blockwise) {
    const open = (stage: number, batch: unknown) => openStage(place, at(stages, stage), [batch]);
    const output = streamedOutput(place, at(stages, -1));
    await sayAll({ blockwise, open, likeliest: output && ((x) => likeliestTokens(place, output, x)) });
    return said;
  }
  // What it will say is not known yet, so which rows of a table it will read is not either.
  const whole = { ...place, model: { ...generative, tables: new Set<string>() } };
  const { weights, changed, dispose: close } = await openStage(whole, at(stages, 0), []);
  try {
    const held = { weights, changed, dispose: () => {} };
    await sayAll({ blockwise, open: () => Promise.resolve(held) });
  } finally {
    close();
  }
  return said;
}

/** The likeliest token of each row [rows, width], the first of equals, a piece of the output layer at a time. */
async function likeliestTokens(
  place: OutputPlace,
  { weight, cap }: Pick<OutputBlock<unknown>, "weight" | "cap">,
  x: Tensor,
): Promise<Int32Array> {
  const best = new Int32Array(x.shape[0] ?? 0);
  const highest = new Float32Array(best.length).fill(-Infinity);
  await eachPiece(place, weight, async (piece, _, [from]) => {
    const made = tidy((): Tensor[] => {
      const z = scoresOf(asMatrix(x, "activations"), piece, cap);
      return [argMax(z, -1), max(z, -1)];
    });
    const [own, high] = [await at(made, 0).data<"int32">(), await at(made, 1).data<"float32">()];
    dispose(made);
    for (const [row, score] of high.entries()) {
      if (score <= f32(highest, row)) continue;
      highest[row] = score;
      best[row] = from + i32(own, row);
    }
  });
  return best;
}

/** How a model's stages are opened: each block is one, or the whole model. */
interface Opening {
  readonly blockwise: boolean;
  /** A stage's weights, disposed of when it has run; those of the whole model are held. */
  open(stage: number, batch: unknown): Promise<StageWeights>;
  /** The likeliest token behind each row of activations, where the output layer is run in pieces. */
  readonly likeliest?: ((x: Tensor) => Promise<Int32Array>) | undefined;
}

/** What has been said of a row, and whether its end has. */
interface GrowingText {
  readonly said: number[];
  isOver: boolean;
}

async function generateRows(
  model: GenerativeModel,
  rows: readonly TokenRow[],
  most: number,
  opening: Opening,
): Promise<number[][]> {
  const { generation } = model;
  const first = model.prepare(rows.map(({ ids, types }) => ({ ids, types })));
  const room = Math.min(...rows.map((row) => roomBehind(model, row)));
  const texts = rows.map((): GrowingText => ({ said: [], isOver: false }));
  const cache = emptyKvCache();
  try {
    let batch = first;
    for (let step = 0; step < Math.min(most, room); step++) {
      const from = step === 0 ? 0 : generation.firstBlock;
      const next = await nextTokens(model, { batch, cache, from }, opening);
      for (const [r, text] of texts.entries()) {
        const id = i32(next, r);
        text.isOver ||= generation.ends.includes(id);
        if (!text.isOver) text.said.push(id);
      }
      if (texts.every(({ isOver }) => isOver)) break;
      batch = generation.nextBatch(first, [...next], step);
    }
    return texts.map(({ said }) => said);
  } finally {
    cache.dispose();
  }
}

/** What is read in one pass, by the blocks from one on. */
interface Reading {
  readonly batch: unknown;
  readonly cache: GrowingKvCache;
  readonly from: number;
}

/** The likeliest next token of every row, when a batch has been read. */
async function nextTokens(
  model: GenerativeModel,
  { batch, cache, from }: Reading,
  { blockwise, open, likeliest }: Opening,
): Promise<Int32Array> {
  cache.read(model.generation.cachedRows(batch));
  const blocks = model.blocks.slice(from);
  const groups = blockwise ? blocks.map((block) => [block]) : [blocks];
  let carried: Tensor[] = [];
  for (const [g, group] of groups.entries()) {
    if (likeliest && g === groups.length - 1) {
      const found = await likeliest(at(carried, 0));
      dispose(carried);
      return found;
    }
    const { weights, dispose: close } = await open(from + g, batch);
    try {
      const before = carried;
      carried = tidy(() => {
        let state = model.start(batch, cache);
        if (g > 0) state = model.carry(state, before);
        for (const block of group) state = block.run(weights, state);
        if (g === groups.length - 1) return [argMax(model.features(state), -1)];
        return model.carried(state);
      });
      dispose(before.filter((t) => !carried.includes(t)));
    } finally {
      close();
    }
  }
  const next = at(carried, 0);
  try {
    return await next.data<"int32">();
  } finally {
    next.dispose();
  }
}
