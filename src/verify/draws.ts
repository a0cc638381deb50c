/** The draws of DARE, worked out again: a coin for each entry. */

/** 32 bits from 32 bits (Wellons' lowbias32). */
function scatter(bits: number): number {
  let x = bits;
  for (const [shift, factor] of [
    [16, 0x21f0aaad],
    [15, 0x735a2d97],
  ] as const)
    x = Math.imul(x ^ (x >>> shift), factor);
  return x ^ (x >>> 15);
}

/** A text's hash (FNV-1a), scattered. */
const hashOf = (text: string): number =>
  scatter(
    text
      .split("")
      .reduce((hash, character) => Math.imul(hash ^ character.charCodeAt(0), 0x01000193), 0x811c9dc5),
  );

/** Whether an entry of a model's tensor is kept: a coin for each, known by seed, tensor, model and place. */
export function coinsOf(seed: number, name: string, label: string, p: number): (entry: number) => boolean {
  const text = [seed, "dare", name, label].join("\0");
  const [first, second] = [hashOf(text), hashOf(`${text}\u0001`)];
  return (entry) => scatter(scatter(entry + first) ^ second) >>> 0 >= p * 2 ** 32;
}
