import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
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

/** The image processor of a folder; without one, that of ViT: resize to the model's size, to [−1, 1]. */
export async function loadProcessor(folder: string): Promise<Processor> {
  const path = join(folder, "preprocessor_config.json");
  if (!existsSync(path)) return {};
  const parsed = processor.safeParse(await readJson(path));
  if (!parsed.success) throw new UserError(`${path}: ${firstIssue(parsed.error)}`);
  return parsed.data;
}

/** How far a filter reaches, and its weight at a distance: PIL's numbers 2 (bilinear) and 3 (bicubic, a = −0.5). */
const filters: Record<number, { reach: number; weight(x: number): number }> = {
  2: { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  3: {
    reach: 2,
    weight(signed) {
      const x = Math.abs(signed);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
    },
  },
};

/** 1, in PIL's fixed point. */
const one = 2 ** 22;

/** Bytes as lines of pixels: where a line begins, and how far it is to the next pixel of it. */
interface Lines {
  readonly bytes: Uint8Array;
  /** Pixels in a line. */
  readonly length: number;
  readonly line: number;
  readonly step: number;
}

/**
 * Along one axis, with the filter widened where it shrinks: PIL's way. Rounds to bytes, as PIL does
 * between the axes.
 */
function resample(from: Lines, to: Lines, count: number, channels: number, kind: number): void {
  const { reach, weight } = filters[kind]!;
  const { length } = from;
  const target = to.length;
  const scale = length / target;
  const wide = Math.max(1, scale);
  for (let t = 0; t < target; t++) {
    const centre = (t + 0.5) * scale;
    const [first, last] = [
      Math.max(0, Math.trunc(centre - reach * wide + 0.5)),
      Math.min(length, Math.trunc(centre + reach * wide + 0.5)),
    ];
    const weights = Array.from({ length: last - first }, (_, i) => weight((first + i - centre + 0.5) / wide));
    const total = weights.reduce((a, b) => a + b, 0);
    // PIL weighs in fixed point: the same whole numbers give the same bytes.
    const fixed = weights.map((w) => Math.trunc((w / total) * one + (w < 0 ? -0.5 : 0.5)));
    for (let line = 0; line < count; line++) {
      for (let c = 0; c < channels; c++) {
        let sum = one / 2;
        for (let i = 0; i < fixed.length; i++)
          sum += fixed[i]! * from.bytes[line * from.line + (first + i) * from.step + c]!;
        to.bytes[line * to.line + t * to.step + c] = Math.min(255, Math.max(0, Math.floor(sum / one)));
      }
    }
  }
}

export function resize(
  { height, width, channels, pixels }: Picture,
  toHeight: number,
  toWidth: number,
  kind = 3,
): Picture {
  if (height === toHeight && width === toWidth) return { height, width, channels, pixels };
  if (!filters[kind])
    throw new UserError(
      `preprocessor_config.json: resample ${kind} is not supported, only 2 (bilinear) and 3 (bicubic)`,
    );
  const across = new Uint8Array(height * toWidth * channels);
  resample(
    { bytes: pixels, length: width, line: width * channels, step: channels },
    { bytes: across, length: toWidth, line: toWidth * channels, step: channels },
    height,
    channels,
    kind,
  );
  const out = new Uint8Array(toHeight * toWidth * channels);
  resample(
    { bytes: across, length: height, line: channels, step: toWidth * channels },
    { bytes: out, length: toHeight, line: channels, step: toWidth * channels },
    toWidth,
    channels,
    kind,
  );
  return { height: toHeight, width: toWidth, channels, pixels: out };
}

function sizeOf(
  { size, do_center_crop: crops }: Processor,
  { height, width }: Picture,
  fallback: number,
): [height: number, width: number] {
  if (size == null) return [fallback, fallback];
  if (typeof size === "object" && "height" in size) return [size.height, size.width];
  // A number by itself is the shorter edge where a crop follows (CLIP), else both (ViT).
  if (typeof size === "number" && crops !== true) return [size, size];
  const [short, target] = [Math.min(height, width), typeof size === "number" ? size : size.shortest_edge];
  return [height, width].map((edge) => Math.trunc((edge * target) / short)) as [number, number];
}

const cropOf = (size: Processor["crop_size"], fallback: number): [height: number, width: number] => {
  if (typeof size === "object" && size !== null && "height" in size) return [size.height, size.width];
  const edge = typeof size === "number" ? size : (size?.shortest_edge ?? fallback);
  return [edge, edge];
};

function centreCrop(
  { height, width, channels, pixels }: Picture,
  toHeight: number,
  toWidth: number,
): Picture {
  if (height === toHeight && width === toWidth) return { height, width, channels, pixels };
  const out = new Uint8Array(toHeight * toWidth * channels);
  const [top, left] = [Math.floor((height - toHeight) / 2), Math.floor((width - toWidth) / 2)];
  for (let y = 0; y < toHeight; y++) {
    for (let x = 0; x < toWidth; x++) {
      const [sy, sx] = [top + y, left + x];
      if (sy < 0 || sx < 0 || sy >= height || sx >= width) continue;
      for (let c = 0; c < channels; c++)
        out[(y * toWidth + x) * channels + c] = pixels[(sy * width + sx) * channels + c]!;
    }
  }
  return { height: toHeight, width: toWidth, channels, pixels: out };
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
  const [height, width] = sizeOf(how, picture, size);
  const resized = how.do_resize === false ? picture : resize(picture, height, width, how.resample ?? 2);
  const {
    pixels,
    channels: own,
    ...cropped
  } = how.do_center_crop === true ? centreCrop(resized, ...cropOf(how.crop_size, size)) : resized;
  if (cropped.height !== size || cropped.width !== size)
    throw new UserError(
      `an image of ${picture.height} × ${picture.width} comes out as ${cropped.height} × ` +
        `${cropped.width}, the model takes ${size} × ${size}`,
    );
  const factor = how.do_rescale === false ? 1 : (how.rescale_factor ?? 1 / 255);
  const of = (value: Processor["image_mean"], c: number, plain: number): number => {
    if (how.do_normalize === false) return plain;
    return typeof value === "number" ? value : (value?.[Math.min(c, value.length - 1)] ?? 0.5);
  };
  const out = new Float32Array(channels * size * size);
  for (let c = 0; c < channels; c++) {
    const [mean, deviation] = [of(how.image_mean, c, 0), of(how.image_std, c, 1)];
    // A grey image has its one channel in every place.
    for (let i = 0; i < size * size; i++)
      out[c * size * size + i] = (pixels[i * own + Math.min(c, own - 1)]! * factor - mean) / deviation;
  }
  return out;
}
