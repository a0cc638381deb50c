import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { i32, u8 } from "../at.js";
import type { ImageShape } from "../models/types.js";
import { readJson } from "../checkpoint/files.js";
import { firstIssue, UserError } from "../errors.js";

/** An image as it is read: [height, width, channels] of bytes. */
export interface Picture {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly pixels: Uint8Array;
}

const side = z.union([
  z.number().int().positive(),
  z.object({ height: z.number().int().positive(), width: z.number().int().positive() }),
  z.object({ shortest_edge: z.number().int().positive() }),
]);
const triple = z.union([z.number(), z.array(z.number())]);
const processor = z.object({
  do_resize: z.boolean().nullish(),
  size: side.nullish(),
  resample: z.number().int().nullish(),
  do_center_crop: z.boolean().nullish(),
  crop_size: side.nullish(),
  do_rescale: z.boolean().nullish(),
  rescale_factor: z.number().nullish(),
  do_normalize: z.boolean().nullish(),
  image_mean: triple.nullish(),
  image_std: triple.nullish(),
});
export type Processor = z.infer<typeof processor>;

/** How a folder says that images are prepared. */
export const processorFile = "preprocessor_config.json";

/** The image processor of a folder; without one, that of ViT: resize to the model's size, to [−1, 1]. */
export async function loadProcessor(folder: string): Promise<Processor> {
  const path = join(folder, processorFile);
  if (!existsSync(path)) return {};
  const parsed = processor.safeParse(await readJson(path));
  if (!parsed.success) throw new UserError(`${path}: ${firstIssue(parsed.error)}`);
  return parsed.data;
}

/** What {@link loadProcessor} makes of a folder without a file, as transformers writes it. */
export const customaryProcessor = ({ size, channels }: ImageShape): Record<string, unknown> => ({
  image_processor_type: "ViTImageProcessor",
  do_resize: true,
  size: { height: size, width: size },
  resample: customaryFilter,
  do_rescale: true,
  rescale_factor: 1 / 255,
  do_normalize: true,
  image_mean: Array<number>(channels).fill(0.5),
  image_std: Array<number>(channels).fill(0.5),
});

/** Bicubic. */
const customaryFilter = 3;

/** How far a filter reaches, and its weight at a distance. */
interface Filter {
  readonly reach: number;
  weight(x: number): number;
}

/** PIL's numbers 2 (bilinear) and 3 (bicubic, a = −0.5). */
const filters: Readonly<Record<number, Filter>> = {
  2: { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  3: {
    reach: 2,
    weight(signed) {
      const x = Math.abs(signed);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
      return 0;
    },
  },
};

/** 1, in PIL's fixed point. */
const fixedOne = 2 ** 22;

/** Bytes as lines of pixels: where a line begins, and how far it is to the next pixel of it. */
interface PixelLines {
  readonly bytes: Uint8Array;
  /** Pixels in a line. */
  readonly length: number;
  readonly line: number;
  readonly step: number;
}

/** What a pixel of a shorter or longer line is made of: the weights of some pixels from `first` on. */
interface Taps {
  readonly first: number;
  /** In PIL's fixed point: the same whole numbers give the same bytes. */
  readonly weights: Int32Array;
}

/** The filter is widened where the line shrinks. */
function tapsOf({ reach, weight }: Filter, target: number, length: number, count: number): Taps {
  const scale = length / count;
  const wide = Math.max(1, scale);
  const centre = (target + 0.5) * scale;
  const first = Math.max(0, Math.trunc(centre - reach * wide + 0.5));
  const last = Math.min(length, Math.trunc(centre + reach * wide + 0.5));
  const weights = Array.from({ length: last - first }, (_, i) => weight((first + i - centre + 0.5) / wide));
  const total = weights.reduce((a, b) => a + b, 0);
  return {
    first,
    weights: Int32Array.from(weights, (w) => Math.trunc((w / total) * fixedOne + Math.sign(w) / 2)),
  };
}

/** The sum of some bytes, `step` apart, each times its weight. A function of its own, so that it is compiled soon. */
function weighed(weights: Int32Array, bytes: Uint8Array, start: number, step: number): number {
  let sum = 0;
  for (let i = 0; i < weights.length; i++) sum += i32(weights, i) * u8(bytes, start + i * step);
  return sum;
}

/**
 * `count` lines of pixels of some channels along one axis: PIL's way. Rounds to bytes, as PIL does
 * between the axes.
 */
function resample(
  from: PixelLines,
  to: PixelLines,
  filter: Filter,
  [count, channels]: readonly [number, number],
): void {
  const { bytes, step } = from;
  for (let t = 0; t < to.length; t++) {
    const { first, weights } = tapsOf(filter, t, from.length, to.length);
    for (let line = 0; line < count; line++) {
      for (let c = 0; c < channels; c++) {
        const start = line * from.line + first * step + c;
        const sum = fixedOne / 2 + weighed(weights, bytes, start, step);
        to.bytes[line * to.line + t * to.step + c] = Math.min(255, Math.max(0, Math.floor(sum / fixedOne)));
      }
    }
  }
}

function resize(
  { height, width, channels, pixels }: Picture,
  toHeight: number,
  toWidth: number,
  kind = customaryFilter,
): Picture {
  if (height === toHeight && width === toWidth) return { height, width, channels, pixels };
  const filter = filters[kind];
  if (!filter)
    throw new UserError(
      `preprocessor_config.json: resample ${kind} is not supported, only 2 (bilinear) and 3 (bicubic)`,
    );
  const across = new Uint8Array(height * toWidth * channels);
  resample(
    { bytes: pixels, length: width, line: width * channels, step: channels },
    { bytes: across, length: toWidth, line: toWidth * channels, step: channels },
    filter,
    [height, channels],
  );
  const out = new Uint8Array(toHeight * toWidth * channels);
  resample(
    { bytes: across, length: height, line: channels, step: toWidth * channels },
    { bytes: out, length: toHeight, line: channels, step: toWidth * channels },
    filter,
    [toWidth, channels],
  );
  return { height: toHeight, width: toWidth, channels, pixels: out };
}

type Size = readonly [height: number, width: number];

/** A number by itself is the shorter edge where a crop follows (CLIP), else both (ViT). */
function resizedTo(
  { size, do_center_crop: crops }: Processor,
  { height, width }: Pick<Picture, "height" | "width">,
  fallback: number,
): Size {
  if (size == null) return [fallback, fallback];
  if (typeof size === "number" && crops !== true) return [size, size];
  if (typeof size === "object" && "height" in size) return [size.height, size.width];
  const target = shortestEdge(size);
  const short = Math.min(height, width);
  return [Math.trunc((height * target) / short), Math.trunc((width * target) / short)];
}

const shortestEdge = (size: number | { readonly shortest_edge: number }): number =>
  typeof size === "number" ? size : size.shortest_edge;

function cropOf(size: Processor["crop_size"], fallback: number): Size {
  if (size == null) return [fallback, fallback];
  if (typeof size === "object" && "height" in size) return [size.height, size.width];
  const edge = shortestEdge(size);
  return [edge, edge];
}

/**
 * The size that a model's images have: its own, or where that may be another, what the processor makes.
 * @throws UserError where that is not square, or not in whole patches
 */
export function imageSize(how: Processor, { size, patch, resizable }: ImageShape): number {
  if (resizable !== true) return size;
  const [height, width] =
    how.do_center_crop === true ? cropOf(how.crop_size, size) : resizedTo(how, { height: 1, width: 1 }, size);
  if (height === width && height % patch === 0) return height;
  throw new UserError(
    `${processorFile}: images of ${height} × ${width} are not squares of whole patches of ${patch} × ${patch}`,
  );
}

function centreCrop({ height, width, channels, pixels }: Picture, [toHeight, toWidth]: Size): Picture {
  if (height === toHeight && width === toWidth) return { height, width, channels, pixels };
  const out = new Uint8Array(toHeight * toWidth * channels);
  const top = Math.floor((height - toHeight) / 2);
  const left = Math.floor((width - toWidth) / 2);
  // What the picture has of a line of the crop; beyond it, black.
  const [from, to] = [Math.max(0, left), Math.min(width, left + toWidth)];
  for (let y = Math.max(0, -top); y < Math.min(toHeight, height - top); y++) {
    const line = (top + y) * width;
    out.set(
      pixels.subarray((line + from) * channels, (line + to) * channels),
      (y * toWidth + from - left) * channels,
    );
  }
  return { height: toHeight, width: toWidth, channels, pixels: out };
}

/** What a channel is normalised by. */
function normalisation(how: Processor, channel: number): { mean: number; deviation: number } {
  if (how.do_normalize === false) return { mean: 0, deviation: 1 };
  return { mean: ofChannel(how.image_mean, channel), deviation: ofChannel(how.image_std, channel) };
}

/** A channel's number of a processor's mean or deviation; the last one where it has fewer. */
function ofChannel(value: Processor["image_mean"], channel: number): number {
  if (typeof value === "number") return value;
  return value?.[Math.min(channel, value.length - 1)] ?? 0.5;
}

/** A picture resized and cropped, as a processor wants it. @throws UserError where it is not the model's size */
function sized(picture: Picture, how: Processor, size: number): Picture {
  const [height, width] = resizedTo(how, picture, size);
  let cropped = picture;
  if (how.do_resize !== false) cropped = resize(cropped, height, width, how.resample ?? 2);
  if (how.do_center_crop === true) cropped = centreCrop(cropped, cropOf(how.crop_size, size));
  if (cropped.height !== size || cropped.width !== size)
    throw new UserError(
      `an image of ${picture.height} × ${picture.width} comes out as ${cropped.height} × ` +
        `${cropped.width}, the model takes ${size} × ${size}`,
    );
  return cropped;
}

/**
 * An image made ready for a model as its processor says: resized, cropped, scaled, normalised.
 * [channels, size, size].
 */
export function preprocess(
  picture: Picture,
  how: Processor,
  { size, channels }: { readonly size: number; readonly channels: number },
): Float32Array {
  const { pixels, channels: own } = sized(picture, how, size);
  const factor = how.do_rescale === false ? 1 : (how.rescale_factor ?? 1 / 255);
  const out = new Float32Array(channels * size * size);
  for (let c = 0; c < channels; c++) {
    const { mean, deviation } = normalisation(how, c);
    // A grey image has its one channel in every place.
    const from = Math.min(c, own - 1);
    for (let i = 0; i < size * size; i++)
      out[c * size * size + i] = (u8(pixels, i * own + from) * factor - mean) / deviation;
  }
  return out;
}
