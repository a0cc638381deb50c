/**
 * TensorBoard's event files: records of TFRecord (length, its checksum, bytes, their checksum), each an
 * `Event` in protocol buffers' form with a step and a scalar. Written by hand because it takes a page,
 * and no kept library does it.
 */

import { u32 } from "../at.js";

/** CRC-32C, a table of 256 steps. */
const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
  return c;
});

/** TFRecord's masked checksum. */
function checksum(bytes: Uint8Array): number {
  let c = 0xffffffff;
  for (const byte of bytes) c = u32(crcTable, (c ^ byte) & 255) ^ (c >>> 8);
  c = (c ^ 0xffffffff) >>> 0;
  return (((c >>> 15) | (c << 17)) + 0xa282ead8) >>> 0;
}

function varint(value: number): number[] {
  const out: number[] = [];
  let rest = value;
  while (rest >= 128) {
    out.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  return [...out, rest];
}

const fixedBytes = (size: 4 | 8, value: number): number[] => {
  const bytes = Buffer.alloc(size);
  if (size === 4) bytes.writeFloatLE(value);
  else bytes.writeDoubleLE(value);
  return [...bytes];
};
const field = (number: number, wire: 0 | 1 | 2 | 5, content: readonly number[]): number[] => {
  const key = (number << 3) | wire;
  if (wire === 2) return [key, ...varint(content.length), ...content];
  return [key, ...content];
};
const textBytes = (value: string): number[] => [...Buffer.from(value, "utf8")];

function tfRecord(event: readonly number[]): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(event.length));
  const [head, tail] = [Buffer.alloc(4), Buffer.alloc(4)];
  head.writeUInt32LE(checksum(length));
  tail.writeUInt32LE(checksum(Uint8Array.from(event)));
  return Buffer.concat([length, head, Uint8Array.from(event), tail]);
}

export interface ScalarEvent {
  readonly tag: string;
  readonly step: number;
  readonly value: number;
}

/** An event file of scalars, in their order. @param time seconds since 1970, the same for all */
export function eventFile(scalars: readonly ScalarEvent[], time: number): Buffer {
  const wall = field(1, 1, fixedBytes(8, time));
  const events = scalars.map(({ tag, step, value }) => {
    const summary = field(1, 2, [...field(1, 2, textBytes(tag)), ...field(2, 5, fixedBytes(4, value))]);
    const rest = field(5, 2, summary);
    // A step of 0 is left out, as protocol buffers leave out what is nothing.
    if (step === 0) return [...wall, ...rest];
    return [...wall, ...field(2, 0, varint(step)), ...rest];
  });
  return Buffer.concat([[...wall, ...field(3, 2, textBytes("brain.Event:2"))], ...events].map(tfRecord));
}
