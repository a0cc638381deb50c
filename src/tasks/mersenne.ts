import { u32 } from "../at.js";

const stateSize = 624;

/** The bits of an entry, folded: what its successor is made from while seeding. */
function folded(state: Uint32Array, i: number): number {
  const before = u32(state, i - 1);
  return before ^ (before >>> 30);
}

/** The state that Python's `random.seed(n)` makes of a whole number. */
function seededState(seed: number): Uint32Array {
  const state = new Uint32Array(stateSize);
  state[0] = 19650218;
  for (let i = 1; i < stateSize; i++) state[i] = Math.imul(1812433253, folded(state, i)) + i;
  // Python seeds by array: the number's 32-bit words, the lowest first.
  const words = Uint32Array.of(seed, Math.floor(seed / 2 ** 32));
  const key = words.subarray(0, seed >= 2 ** 32 ? 2 : 1);
  let i = 1;
  const advance = () => {
    if (++i < stateSize) return;
    state[0] = u32(state, stateSize - 1);
    i = 1;
  };
  for (let k = 0; k < stateSize; k++) {
    const j = k % key.length;
    state[i] = (u32(state, i) ^ Math.imul(folded(state, i), 1664525)) + u32(key, j) + j;
    advance();
  }
  for (let k = 1; k < stateSize; k++) {
    state[i] = (u32(state, i) ^ Math.imul(folded(state, i), 1566083941)) - i;
    advance();
  }
  state[0] = 0x80000000;
  return state;
}

/** Python's `random.seed(n)` for a whole number, and its draws: the Mersenne Twister (Matsumoto & Nishimura 1998). */
function twister(seed: number): () => number {
  const state = seededState(seed);
  let next = stateSize;
  return () => {
    if (next === stateSize) {
      for (let k = 0; k < stateSize; k++) {
        const y = (u32(state, k) & 0x80000000) | (u32(state, (k + 1) % stateSize) & 0x7fffffff);
        state[k] = u32(state, (k + 397) % stateSize) ^ (y >>> 1) ^ ((y & 1) * 0x9908b0df);
      }
      next = 0;
    }
    let y = u32(state, next++);
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/**
 * `random.seed(seed)`, then `random._randbelow(count)` of Python 3 at each call: what its `shuffle` draws by.
 * @param seed a whole number
 */
export function pythonBelow(seed: number): (count: number) => number {
  const draw = twister(seed);
  return (count) => {
    // As many bits as the number of choices has, drawn again where they say too much.
    const unused = Math.clz32(count);
    let j = draw() >>> unused;
    while (j >= count) j = draw() >>> unused;
    return j;
  };
}
