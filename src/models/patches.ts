import { reshape, tensor1d, tensor2d, type Tensor2D } from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import type { State } from "./encoder.js";
import { areFrozen, weightVector, type NamedShape } from "./layers.js";
import { resizedPositions } from "./resized-positions.js";
import { affine, concatenated, plus, rows, type Dense } from "./ops.js";
import type { Block, ImageShape, TokenBatch, TokenRow, Weights } from "./types.js";

/** Tokens of an image: the class token, where there is one, then one a patch. */
export const tokensOfImage = ({ size, patch, hasNoClassToken }: ImageShape): number =>
  Number(hasNoClassToken !== true) + Math.floor(size / patch) ** 2;

export interface PatchNames {
  /** [width] numbers, whatever shape the file gives them; none for images without a class token. */
  readonly classToken?: NamedShape | undefined;
  /** A convolution's, [width, channels, patch, patch]: as large as its step, so a product of every patch. */
  readonly projection: string;
  readonly bias: boolean;
  /** [tokens, width], perhaps with a 1 in front. */
  readonly positions: string;
  readonly positionShape: readonly number[];
}

function patchesOfRow({ patches }: TokenRow): Float32Array {
  if (!patches) throw new TypeError("a row has no patches, and the model reads images");
  return patches();
}

/** All patches of a batch, in the order in which its rows lie: [rows · patches, channels · patch · patch]. */
function patchesOf({ order, rows: given }: TokenBatch, width: number): Tensor2D {
  const each = order.map((r) => patchesOfRow(at(given, r)));
  const all = new Float32Array(each.reduce((sum, { length }) => sum + length, 0));
  let start = 0;
  for (const patches of each) {
    all.set(patches, start);
    start += patches.length;
  }
  return tensor2d(all, [all.length / width, width]);
}

/** The projection of patches as a dense layer. */
function projectionLayer(
  w: Weights,
  { projection, bias: isBiased }: PatchNames,
  shape: [number, number],
): Dense {
  const [name, bias] = [`${projection}.weight`, `${projection}.bias`];
  const weight: Tensor2D = reshape(w(name), shape);
  if (!isBiased) return { weight, frozen: areFrozen(w, name) };
  return { weight, bias: weightVector(w, bias), frozen: areFrozen(w, name, bias) };
}

/**
 * Which rows the tokens of so many images are, of the class token and all their patches one below the other: every
 * image begins with the class token.
 */
const withClassToken = (images: number, tokens: number): Int32Array =>
  Int32Array.from({ length: images * tokens }, (_, t) =>
    t % tokens === 0 ? 0 : Math.floor(t / tokens) * (tokens - 1) + (t % tokens),
  );

/** A class token, where there is one, and a token a patch, with the embeddings of their positions. */
export function patchEmbeddings(image: ImageShape, width: number, names: PatchNames): Block<State> {
  const inputs = image.channels * image.patch ** 2;
  const tokens = tokensOfImage(image);
  const bias: NamedShape[] = [[`${names.projection}.bias`, [width]]];
  const { classToken } = names;
  return {
    id: "embeddings",
    shapes: new Map<string, readonly number[]>([
      ...(classToken ? [classToken] : []),
      [`${names.projection}.weight`, [width, image.channels, image.patch, image.patch]],
      ...bias.filter(() => names.bias),
      [names.positions, names.positionShape],
    ]),
    run(w, state) {
      const { batch } = state;
      const projected = affine(patchesOf(batch, inputs), [projectionLayer(w, names, [width, inputs])]);
      // Images of a batch are of one size, which is the model's unless that may be another.
      const own = image.resizable ? at(batch.rows, 0).ids.length : tokens;
      const ofModel: Tensor2D = reshape(w(names.positions), [tokens, width]);
      const table = image.resizable ? resizedPositions(ofModel, Math.sqrt(own - 1)) : ofModel;
      const positions = rows(table, tensor1d(batch.ids, "int32"));
      if (!classToken) return { ...state, x: plus(projected, positions) };
      const all = concatenated([reshape(w(classToken[0]), [1, width]), projected], 0);
      const from = withClassToken(batch.rows.length, own);
      return { ...state, x: plus(rows(all, tensor1d(from, "int32")), positions) };
    },
  };
}

/**
 * An image as a row. Pixels are [channels, size, size], normalised; they are asked for whenever a pass
 * reads the row.
 */
export const imageRow = (pixels: () => Float32Array, image: ImageShape): TokenRow => ({
  ids: tokenPositions(tokensOfImage(image)),
  types: [],
  patches: () => cut(pixels(), image),
});

/** An image's patches from the upper left, a line at a time. */
function cut(pixels: Float32Array, { size, patch, channels }: ImageShape): Float32Array {
  const across = Math.floor(size / patch);
  const patches = new Float32Array(channels * (across * patch) ** 2);
  let filled = 0;
  for (let p = 0; p < across * across; p++) {
    const [top, left] = [Math.floor(p / across) * patch, (p % across) * patch];
    for (let c = 0; c < channels; c++) {
      for (let y = 0; y < patch; y++) {
        const start = (c * size + top + y) * size + left;
        patches.set(pixels.subarray(start, start + patch), filled);
        filled += patch;
      }
    }
  }
  return patches;
}

const known = new Map<number, readonly number[]>();
/** 0, 1, …: one array for all images of a size. */
function tokenPositions(tokens: number): readonly number[] {
  const found = known.get(tokens) ?? Array.from({ length: tokens }, (_, i) => i);
  known.set(tokens, found);
  return found;
}
