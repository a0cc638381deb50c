import { at } from "../at.js";

type Numbers = Uint8Array | Float32Array | Int32Array;

/** Arrays of one type, one after the other. @throws RangeError where there are none: their type is not known then */
export function joined<T extends Numbers>(pieces: readonly T[]): T {
  // TypeScript has no type for "the class of this object".
  const ofLength = at(pieces, 0).constructor as new (size: number) => T;
  const out = new ofLength(pieces.reduce((sum, { length }) => sum + length, 0));
  let start = 0;
  for (const piece of pieces) {
    out.set(piece, start);
    start += piece.length;
  }
  return out;
}
