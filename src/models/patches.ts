import { reshape, tensor1d, tensor2d, type Tensor1D, type Tensor2D } from "@tensorflow/tfjs-core";
import type { State } from "./encoder.js";
import { joined, linear, plus, rows } from "./ops.js";
import type { Block, ImageShape, TokenBatch, TokenRow } from "./types.js";

export const tokensOf = ({ size, patch }: ImageShape): number => 1 + (size / patch) ** 2;

export interface PatchNames {
  /** [width] numbers, whatever shape the file gives them. */
  readonly classToken: string;
  readonly classShape: readonly number[];
  /** A convolution's, [width, channels, patch, patch]: as large as its step, so a product of every patch. */
  readonly projection: string;
  readonly bias: boolean;
  /** [1 + patches, width], perhaps with a 1 in front. */
  readonly positions: string;
  readonly positionShape: readonly number[];
}

/** All patches of a batch, in the order in which its rows lie: [rows · patches, channels · patch · patch]. */
function patchesOf({ order, rows: given }: TokenBatch, width: number): Tensor2D {
  const each = order.map((r) => given[r]!.patches!());
  const all = new Float32Array(each.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const patches of each) {
    all.set(patches, at);
    at += patches.length;
  }
  return tensor2d(all, [all.length / width, width]);
}

/** A class token and a token a patch, with the embeddings of their places. */
export function patchEmbeddings(image: ImageShape, width: number, names: PatchNames): Block<State> {
  const inputs = image.channels * image.patch ** 2;
  const tokens = tokensOf(image);
  return {
    id: "embeddings",
    shapes: new Map<string, readonly number[]>([
      [names.classToken, names.classShape],
      [`${names.projection}.weight`, [width, image.channels, image.patch, image.patch]],
      ...(names.bias ? [[`${names.projection}.bias`, [width]] as const] : []),
      [names.positions, names.positionShape],
    ]),
    run(w, state) {
      const { batch } = state;
      const [weight, bias] = [
        `${names.projection}.weight`,
        names.bias ? `${names.projection}.bias` : undefined,
      ];
      const projected = linear(patchesOf(batch, inputs), [
        {
          weight: reshape(w(weight), [width, inputs]),
          bias: bias === undefined ? undefined : (w(bias) as Tensor1D),
          frozen: w.frozen?.(weight) && (bias === undefined || w.frozen(bias)),
        },
      ]);
      const all = joined([reshape(w(names.classToken), [1, width]), projected], 0);
      const from = Int32Array.from({ length: batch.rows.length * tokens }, (_, t) =>
        t % tokens === 0 ? 0 : Math.floor(t / tokens) * (tokens - 1) + (t % tokens),
      );
      const places = rows(reshape(w(names.positions), [tokens, width]), tensor1d(batch.ids, "int32"));
      return { ...state, x: plus(rows(all, tensor1d(from, "int32")), places) };
    },
  };
}

/**
 * An image as a row. Pixels are [channels, size, size], normalised; they are asked for whenever a pass
 * reads the row.
 */
export const imageRow = (pixels: () => ArrayLike<number>, image: ImageShape): TokenRow => ({
  ids: placesOf(tokensOf(image)),
  types: [],
  patches: () => cut(pixels(), image),
});

/** An image's patches from the upper left, a line at a time. */
function cut(pixels: ArrayLike<number>, { size, patch, channels }: ImageShape): Float32Array {
  const across = size / patch;
  const patches = new Float32Array(channels * size * size);
  let at = 0;
  for (let p = 0; p < across * across; p++) {
    const [top, left] = [Math.floor(p / across) * patch, (p % across) * patch];
    for (let c = 0; c < channels; c++)
      for (let y = 0; y < patch; y++)
        for (let x = 0; x < patch; x++) patches[at++] = pixels[(c * size + top + y) * size + left + x]!;
  }
  return patches;
}

const known = new Map<number, readonly number[]>();
/** 0, 1, …: one array for all images of a size. */
function placesOf(tokens: number): readonly number[] {
  const found = known.get(tokens) ?? Array.from({ length: tokens }, (_, i) => i);
  known.set(tokens, found);
  return found;
}
