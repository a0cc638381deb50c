import { createRequire } from "node:module";
import { messageOf, UserError } from "../errors.js";
import type { Picture } from "./pixels.js";

/** Turns the bytes of a picture's file into its pixels. @throws UserError where they are no picture that is read */
export type Decoder = (bytes: Uint8Array, where: string) => Picture;

interface JpegDecoder {
  getEncodedBuffer(size: number): Uint8Array;
  decode(): void;
  getDecodedBuffer(): Uint8Array;
  getFrameInfo(): { readonly width: number; readonly height: number; readonly componentCount: number };
  delete(): void;
}
interface JpegModule {
  readonly JPEGDecoder: new () => JpegDecoder;
}

type PngModule = typeof import("pngjs");

/** Beyond this a picture's header is not believed. */
const mostPixels = 2 ** 25;

function decodePng({ PNG }: PngModule, bytes: Uint8Array, where: string): Picture {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (file.length < 24 || file.readUInt32BE(16) * file.readUInt32BE(20) > mostPixels)
    throw new UserError(`${where}: its header says that it has more than ${mostPixels} pixels`);
  try {
    const { width, height, data } = PNG.sync.read(file);
    // Without transparency, as PIL's convert("RGB") leaves it out.
    const pixels = new Uint8Array(width * height * 3);
    for (let i = 0; i < width * height; i++) pixels.set(data.subarray(4 * i, 4 * i + 3), 3 * i);
    return { width, height, channels: 3, pixels };
  } catch (error) {
    throw new UserError(`${where}: not a PNG that can be read (${messageOf(error)})`);
  }
}

function decodeJpeg({ JPEGDecoder }: JpegModule, bytes: Uint8Array, where: string): Picture {
  const decoder = new JPEGDecoder();
  try {
    decoder.getEncodedBuffer(bytes.length).set(bytes);
    decoder.decode();
    const { width, height, componentCount: channels } = decoder.getFrameInfo();
    // A view of the codec's own memory.
    return {
      width,
      height,
      channels,
      pixels: decoder.getDecodedBuffer().slice(0, width * height * channels),
    };
  } catch {
    // The codec throws numbers.
    throw new UserError(`${where}: not a JPEG that can be read (one of grey or colour; CMYK is not)`);
  } finally {
    decoder.delete();
  }
}

const isPng = (bytes: Uint8Array): boolean => bytes[0] === 0x89 && bytes[1] === 0x50;
const isJpeg = (bytes: Uint8Array): boolean => bytes[0] === 0xff && bytes[1] === 0xd8;

/** Names of files that {@link loadDecoder}'s decoder reads. */
export const pictureFile = /\.(png|jpe?g)$/i;

/** The decoder of PNG and JPEG files (libjpeg-turbo's own arithmetic, so that its pixels are PIL's). */
export async function loadDecoder(): Promise<Decoder> {
  // Its module is CommonJS, and has no types: what it exports is said here.
  const make = createRequire(import.meta.url)(
    "@cornerstonejs/codec-libjpeg-turbo-8bit/decodewasmjs",
  ) as () => Promise<JpegModule>;
  const [jpeg, png] = [await make(), await import("pngjs")];
  return (bytes, where) => {
    if (isPng(bytes)) return decodePng(png, bytes, where);
    if (isJpeg(bytes)) return decodeJpeg(jpeg, bytes, where);
    throw new UserError(`${where}: not a PNG or JPEG file`);
  };
}
