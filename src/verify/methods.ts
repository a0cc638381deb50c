/**
 * Methods that look at whole tensors, worked out again: TIES, DARE, SLERP. In float64, from the papers and from what is
 * documented, without the code that merges; only what decides (which entries are the largest) is rounded as there.
 */
import { at, f32, f64 } from "../at.js";
import { coinsOf } from "./draws.js";
import { dropsAny, numbersOf, scalesBlocks, type Values } from "./sums.js";

/** What an entry of a result must be: one of these, where a rounding decides which. */
export interface ExpectedEntry {
  readonly right: readonly number[];
  /** How large is what it is made of: roundings are measured against that. */
  readonly magnitude: number;
}

/** A tensor of all models. */
export interface WholeTensor {
  readonly name: string;
  readonly base: Float32Array | undefined;
  readonly inputs: readonly Float32Array[];
}

/** The models of a merge. */
export interface MergedModels {
  /** What the inputs are called. */
  readonly labels: readonly string[];
  /** Tensors that are merged. */
  readonly names: readonly string[];
  read(name: string): Promise<WholeTensor>;
}

type EntryOf = (entry: number) => ExpectedEntry;
/** Works out a method again: first what it needs of all tensors, then tensor by tensor. */
export type Rework = (values: Values, models: MergedModels) => Promise<(tensor: WholeTensor) => EntryOf>;

const sum = (values: readonly number[]): number => values.reduce((total, one) => total + one, 0);

/** What is infinite in both (a mask) differs by nothing. */
function differenceOf(value: number, from: number): number {
  if (value === from) return 0;
  return Math.fround(value - from);
}

/** An entry's task vectors, as float32 holds them. */
function deltasAt({ base, inputs }: WholeTensor, entry: number): { from: number; deltas: number[] } {
  const from = base?.[entry] ?? 0;
  return { from, deltas: inputs.map((x) => differenceOf(f32(x, entry), from)) };
}

// TIES.

const bytes = new DataView(new ArrayBuffer(4));
/** The bits of a magnitude: they are in order as the numbers are. */
function bitsOf(value: number): number {
  bytes.setFloat32(0, Math.abs(value));
  return bytes.getUint32(0);
}
function ofBits(bits: number): number {
  bytes.setUint32(0, bits);
  return bytes.getFloat32(0);
}

/** For each model, how many magnitudes have each value in 16 bits of theirs. */
async function countBits(
  { names, labels, read }: MergedModels,
  digitOf: (bits: number, model: number) => number | undefined,
): Promise<Float64Array[]> {
  const counts = labels.map(() => new Float64Array(65536));
  for (const name of names) {
    const tensor = await read(name);
    const size = at(tensor.inputs, 0).length;
    for (let entry = 0; entry < size; entry++)
      for (const [i, delta] of deltasAt(tensor, entry).deltas.entries()) {
        const digit = digitOf(bitsOf(delta), i);
        const own = at(counts, i);
        if (digit !== undefined) own[digit] = f64(own, digit) + 1;
      }
  }
  return counts;
}

/** The digit in which a rank falls, counted from the largest, and its rank there. */
function digitAt(counts: Float64Array, rank: number): readonly [digit: number, rank: number] {
  let left = rank;
  for (let digit = counts.length - 1; digit >= 0; digit--) {
    if (left <= f64(counts, digit)) return [digit, left];
    left -= f64(counts, digit);
  }
  return [0, left];
}

/** What a magnitude must reach in each model, all tensors taken together (the authors' code). */
async function limitsOf(models: MergedModels, density: readonly number[]): Promise<number[]> {
  const upper = await countBits(models, (bits) => bits >>> 16);
  const found = upper.map((counts, i) => {
    const size = counts.reduce((total, one) => total + one, 0);
    return digitAt(counts, Math.min(size, Math.floor(size * at(density, i)) + 1));
  });
  const lower = await countBits(models, (bits, i) => {
    if (bits >>> 16 !== at(found, i)[0]) return undefined;
    return bits & 0xffff;
  });
  return lower.map((counts, i) => {
    const [digit, rank] = at(found, i);
    return ofBits(digit * 65536 + digitAt(counts, rank)[0]);
  });
}

/** The signs that an entry may have been given: both, where a rounding decides. */
function signsOf(terms: readonly number[], ofNothing: readonly number[]): readonly number[] {
  const total = sum(terms);
  if (terms.every((term) => term === 0)) return ofNothing;
  if (Math.abs(total) <= 2 ** -20 * sum(terms.map(Math.abs))) return [-1, 1];
  return [Math.sign(total)];
}

const tiesOfModels: Rework = async (values, models) => {
  const limits = await limitsOf(models, numbersOf(values, "density", models.labels.length));
  const lambda = Number(values["lambda"]);
  return (tensor) => (entry) => {
    const { from, deltas } = deltasAt(tensor, entry);
    const kept = deltas.map((delta, i) => delta * Number(Math.abs(delta) >= at(limits, i)));
    const right = signsOf(kept, [-1, 1]).map((sign) => {
      const agreeing = kept.filter((delta) => delta * sign > 0);
      if (values["combine"] === "sum") return from + lambda * sum(agreeing);
      return from + (lambda * sum(agreeing)) / Math.max(1, agreeing.length);
    });
    return { right, magnitude: Math.abs(from) + Math.abs(lambda) * sum(kept.map(Math.abs)) };
  };
};

/** Which entries are kept: the largest, of equal ones the first. */
function largestOf(deltas: Float32Array, part: number): Uint8Array {
  const size = deltas.length;
  const kept = new Uint8Array(size);
  if (part <= 0 || size === 0) return kept;
  const count = Math.min(size, Math.max(1, Math.floor(part * size)));
  const limit = f32(deltas.map(Math.abs).sort(), size - count);
  let equals = count - deltas.reduce((larger, x) => larger + Number(Math.abs(x) > limit), 0);
  for (const [i, x] of deltas.entries()) {
    const isEqual = Math.abs(x) === limit;
    kept[i] = Number(Math.abs(x) > limit || (isEqual && equals > 0));
    equals -= Number(isEqual);
  }
  return kept;
}

/** Σ|τ| before over Σ|τ| after. */
function ratioOf(deltas: Float32Array, kept: (entry: number) => number): number {
  let [before, after] = [0, 0];
  for (const [i, x] of deltas.entries()) {
    before += Math.abs(x);
    after += Math.abs(x) * kept(i);
  }
  if (before < 1e-7 || after < 1e-7) return 1;
  return before / after;
}

/** All task vectors of a tensor. */
function deltasOf({ base, inputs }: WholeTensor): Float32Array[] {
  return inputs.map((x) => x.map((value, i) => differenceOf(value, base?.[i] ?? 0)));
}

// DARE.

/** By what each entry of a model's task vector is multiplied: 0 where it is dropped. Without DARE by 1. */
function dareFactors(
  values: Values,
  labels: readonly string[],
  tensor: WholeTensor,
): ((entry: number) => number)[] {
  if (!dropsAny(values, labels.length)) return labels.map(() => () => 1);
  const dropped = numbersOf(values, "dareP", labels.length);
  return deltasOf(tensor).map((deltas, i) => {
    const p = at(dropped, i);
    const isKept = coinsOf(Number(values["seed"] ?? 0), tensor.name, at(labels, i), p);
    const mask = (entry: number) => Number(p <= 0 || isKept(entry));
    let factor = 1;
    if (values["rescale"] === "l1" && p > 0) factor = ratioOf(deltas, mask);
    if (values["rescale"] === "inverse" && p < 1) factor = 1 / (1 - p);
    return (entry: number) => factor * mask(entry);
  });
}

/** DARE in front of a sum: Σ w_i τ'_i, where τ' is what was kept, rescaled. */
const dareSum: Rework = (values, { labels }) => {
  const weight = numbersOf(values, "weight", labels.length);
  const total = sum(weight);
  const lambda = Number(values["lambda"] ?? 1);
  const isMean = values["normalize"] === true && Math.abs(total) >= 1e-8;
  let scale = lambda;
  if (isMean) scale /= total;
  return Promise.resolve((tensor) => {
    const kept = dareFactors(values, labels, tensor);
    return (entry) => {
      const { from, deltas } = deltasAt(tensor, entry);
      const terms = deltas.map((delta, i) => scale * at(weight, i) * delta * at(kept, i)(entry));
      return { right: [from + sum(terms)], magnitude: Math.abs(from) + sum(terms.map(Math.abs)) };
    };
  });
};

// TIES of each tensor for itself, as mergekit has it.

const tiesOfTensors: Rework = (values, { labels }) =>
  Promise.resolve((tensor) => {
    const [density, weight] = [
      numbersOf(values, "density", labels.length),
      numbersOf(values, "weight", labels.length),
    ];
    const before = dareFactors(values, labels, tensor);
    const treated = deltasOf(tensor).map((deltas, i) =>
      deltas.map((delta, entry) => delta * at(before, i)(entry)),
    );
    const kept = treated.map((deltas, i) => {
      const mask = largestOf(deltas, at(density, i));
      const keeps = (entry: number) => Number(mask[entry] === 1);
      let scale = 1;
      if (values["rescaled"] === true) scale = ratioOf(deltas, keeps);
      return (entry: number) => scale * keeps(entry) * at(before, i)(entry);
    });
    const lambda = Number(values["lambda"]);
    return (entry) => {
      const { from, deltas } = deltasAt(tensor, entry);
      const terms = deltas.map((delta, i) => at(weight, i) * delta * at(kept, i)(entry));
      let magnitude = Math.abs(from);
      const right = signsOf(terms, [1]).map((sign) => {
        const agree = terms.map((term) => term * sign > 0);
        const total = sum(terms.filter((_, i) => agree[i]));
        let share = 1;
        if (values["normalize"] === true) share = sum(weight.filter((_, i) => agree[i])) || 1;
        magnitude = Math.max(magnitude, Math.abs(from) + Math.abs(lambda * total) / Math.abs(share));
        return from + (lambda * total) / share;
      });
      return { right, magnitude };
    };
  });

// SLERP.

const slerp: Rework = (values) =>
  Promise.resolve(({ inputs: [a, b] }) => {
    if (!a || !b) throw new RangeError("slerp is of two models");
    let [aa, ab, bb] = [0, 0, 0];
    for (const [i, x] of a.entries()) {
      const y = f32(b, i);
      if (!Number.isFinite(x) || !Number.isFinite(y)) continue;
      aa += x * x;
      ab += x * y;
      bb += y * y;
    }
    // A vector of next to nothing counts as one of length 1.
    const [first, second] = [aa, bb].map((square) => Math.sqrt(square) * Number(square > 1e-16) || 1);
    const cosine = Math.max(-1, Math.min(1, ab / (first ?? 1) / (second ?? 1)));
    const t = Number(values["t"]);
    const angle = Math.acos(cosine);
    let ends = [Math.sin((1 - t) * angle) / Math.sin(angle), Math.sin(t * angle) / Math.sin(angle)];
    // All but parallel: a straight line.
    if (Math.abs(cosine) > 0.9995) ends = [1 - t, t];
    return (entry) => {
      const own = f32(a, entry);
      if (!Number.isFinite(own)) return { right: [own], magnitude: 0 };
      const terms = [at(ends, 0) * own, at(ends, 1) * f32(b, entry)];
      return { right: [sum(terms)], magnitude: sum(terms.map(Math.abs)) };
    };
  });

const plain: ReadonlyMap<unknown, Rework> = new Map([["slerp", slerp]]);
const reworkedTies: ReadonlyMap<unknown, Rework> = new Map([
  ["original", tiesOfModels],
  ["mergekit", tiesOfTensors],
]);
const reworkedSums = new Set(["dare", "task-arithmetic"]);

/** How a method is worked out again; undefined where it is not. */
export function reworkOf(method: string, values: Values, count: number): Rework | undefined {
  if (scalesBlocks(values)) return undefined;
  const drops = dropsAny(values, count);
  if (drops && reworkedSums.has(method)) return dareSum;
  const isTies = method === "ties" && values["variant"] === "mergekit";
  if (drops && !isTies) return undefined;
  if (method === "ties") return reworkedTies.get(values["variant"]);
  return plain.get(method);
}
