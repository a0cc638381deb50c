/**
 * Random numbers by place: the draw for an entry is a function of the seed, the tensor's and the
 * input's names and the entry's number. So it is the same whatever the parts, the threads and the order
 * of things.
 */

/** A bijective mix of 32 bits (two rounds of scaleBy and shift, with Wellons' published constants). */
function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
  x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
  return x ^ (x >>> 15);
}

/** A text as 32 bits (FNV-1a, then mixed). */
function hashText(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return mix(h);
}

/** Draws of 32 bits, from 0 to 2³² − 1, for entry after entry. */
export function drawsFor(...key: readonly (string | number)[]): (entry: number) => number {
  const text = key.join("\u0000");
  const [a, b] = [hashText(text), hashText(`${text}\u0001`)];
  return (entry) => mix(mix(entry + a) ^ b) >>> 0;
}

/** What a draw must be below for an event of this probability. */
export const below = (probability: number): number => probability * 4294967296;
