/** Python's `random.seed(n)` for a whole number, and its draws: the Mersenne Twister (Matsumoto & Nishimura 1998). */
function twister(seed: number): () => number {
  const state = new Uint32Array(624);
  state[0] = 19650218;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1]! ^ (state[i - 1]! >>> 30)) + i;
  // Python seeds by array: the number's 32-bit words, the lowest first.
  const key = seed >= 2 ** 32 ? [seed >>> 0, Math.floor(seed / 2 ** 32)] : [seed >>> 0];
  let [i, j] = [1, 0];
  for (let k = Math.max(624, key.length); k > 0; k--) {
    state[i] = (state[i]! ^ Math.imul(state[i - 1]! ^ (state[i - 1]! >>> 30), 1664525)) + key[j]! + j;
    if (++i === 624) {
      state[0] = state[623]!;
      i = 1;
    }
    j = (j + 1) % key.length;
  }
  for (let k = 623; k > 0; k--) {
    state[i] = (state[i]! ^ Math.imul(state[i - 1]! ^ (state[i - 1]! >>> 30), 1566083941)) - i;
    if (++i === 624) {
      state[0] = state[623]!;
      i = 1;
    }
  }
  state[0] = 0x80000000;
  let at = 624;
  return () => {
    if (at === 624) {
      for (let k = 0; k < 624; k++) {
        const y = (state[k]! & 0x80000000) | (state[(k + 1) % 624]! & 0x7fffffff);
        state[k] = state[(k + 397) % 624]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let y = state[at++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** `random.seed(seed); random.shuffle(list)` of Python 3: the same order. */
export function pythonShuffled<T>(items: readonly T[], seed: number): T[] {
  const draw = twister(seed);
  const out = [...items];
  for (let i = out.length - 1; i > 0; i--) {
    // As many bits as the number of choices has, drawn again where they say too much.
    const bits = 32 - Math.clz32(i + 1);
    let j = draw() >>> (32 - bits);
    while (j > i) j = draw() >>> (32 - bits);
    [out[i], out[j]] = [out[j]!, out[i]!];
  }
  return out;
}
