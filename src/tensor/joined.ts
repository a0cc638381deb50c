type Numbers = Uint8Array | Float32Array | Int32Array;

/** Arrays of one type, one after the other. */
export function joined<T extends Numbers>(pieces: readonly T[]): T {
  const out = new (pieces[0]!.constructor as new (size: number) => T)(
    pieces.reduce((sum, { length }) => sum + length, 0),
  );
  let at = 0;
  for (const piece of pieces) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}
