import type { Tensor2D } from "@tensorflow/tfjs-core";
import type { ConfigReader } from "./config.js";
import { pipeline, type State } from "./encoder.js";
import { norm, normShapes } from "./layers.js";
import { withoutBias } from "./layout.js";
import { patchEmbeddings, tokensOfImage, type PatchNames } from "./patches.js";
import { preNormLayers, type PreNorm } from "./prenorm.js";
import type { Block, ImageShape, Model } from "./types.js";

/** How images are cut, as configs call it. @param usual what transformers takes where a config does not say */
export const imageShape = (
  { size }: Pick<ConfigReader, "size">,
  usual: { readonly size?: number; readonly patch?: number } = {},
): ImageShape => ({
  size: size("image_size", 1, 1e6, usual.size),
  patch: size("patch_size", 1, 1e6, usual.patch),
  channels: size("num_channels", 1, 1000, 3),
});

/** What a vision transformer says of itself. */
export interface ImageModel {
  readonly image: ImageShape;
  readonly embeddings: Omit<PatchNames, "positionShape"> & {
    /** The embeddings of positions have a 1 in front of their sizes. */
    readonly hasBatchAxis?: boolean;
  };
  /** What stands between embeddings and layers. */
  readonly before?: readonly Block<State>[];
  /** Where the layers are, how many, and their form. */
  readonly layers: { readonly prefix: string; readonly count: number; readonly form: PreNorm };
  readonly last: Block<State>;
  /** Of its features. Default: that of its layers. */
  readonly width?: number;
}

/** The last norm on every token, and what a head is given of them. */
export const normedFeatures = (
  module: string,
  { width, epsilon }: Pick<PreNorm, "width" | "epsilon">,
  features: (state: State) => Tensor2D,
): Block<State> => ({
  id: module,
  shapes: new Map(normShapes(module, width)),
  run: (w, state) => ({ ...state, x: features({ ...state, x: norm(w, module, state.x, epsilon) }) }),
});

/** A model that sees images: a token a patch, layers with their norms in front, and features for a head. */
export function imageModel({ image, embeddings, before = [], layers, last, width }: ImageModel): Model {
  const { form, prefix, count } = layers;
  const { hasBatchAxis = false, ...names } = embeddings;
  const tokens = tokensOfImage(image);
  const positionShape = hasBatchAxis ? [1, tokens, form.width] : [tokens, form.width];
  return pipeline<State>({
    blocks: [
      patchEmbeddings(image, form.width, { ...names, positionShape }),
      ...before,
      ...preNormLayers(prefix, count, form),
      last,
    ],
    tables: [],
    width: width ?? form.width,
    heads: form.heads,
    vocabulary: tokens,
    maxLength: image.resizable ? 1e6 : tokens,
    padId: 0,
    image,
    lookups: () => [],
    start: (initial) => ({ ...initial, bias: initial.batch.segments.map(withoutBias) }),
  });
}
