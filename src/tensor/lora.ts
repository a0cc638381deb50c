import { at, f32 } from "../at.js";
import { addFactors, setRowLengths, transposed, type Factors } from "./lowrank.js";

/**
 * Experts that LoRA adapts as one (PEFT's target_parameters): A [experts · rank, in] has their parts one after the
 * other, in B [out, rank · experts] they alternate.
 */
export interface StackedExperts {
  readonly count: number;
  /** The one whose weight it is; without, the weight has all of them: [experts, …]. */
  readonly index?: number | undefined;
  /** The rows of B that the weight has, where another weight has the others: gate and up. */
  readonly rows?: readonly [from: number, to: number] | undefined;
}

/** What LoRA has for a weight. */
export interface Lora {
  /** [rank, in] */
  readonly a: Float32Array;
  /** [out, rank] */
  readonly b: Float32Array;
  readonly rank: number;
  readonly scale: number;
  /** The weight is stored [in, out]. */
  readonly transposed: boolean;
  readonly experts?: StackedExperts | undefined;
  /** DoRA's lengths of rows. */
  readonly lengths?: Float32Array | undefined;
}

/** LoRA's factors of a weight as it is stored. */
function factorsOf({ a, b, rank, scale, transposed: isTransposed }: Lora): Factors {
  if (!isTransposed) return { left: b, right: a, rank, scale };
  const [input, out] = [a.length / rank, b.length / rank];
  return { left: transposed(a, rank, input), right: transposed(b, out, rank), rank, scale };
}

/** An expert's part of matrices that are those of all. */
function partOfExpert(lora: Lora, { count, rows }: StackedExperts, index: number): Lora {
  const { a, b, rank } = lora;
  const input = a.length / count / rank;
  const [from, to] = rows ?? [0, b.length / count / rank];
  const own = new Float32Array((to - from) * rank);
  for (let row = from; row < to; row++)
    for (let q = 0; q < rank; q++) own[(row - from) * rank + q] = f32(b, (row * rank + q) * count + index);
  return { ...lora, a: a.subarray(index * rank * input, (index + 1) * rank * input), b: own };
}

/** What is done to entries of a weight as it is stored, from entry `from` on. */
export type EntryChange = (out: Float32Array, from: number) => void;

/** Adds each expert's product to its part of a weight that has all of them. @param size entries of an expert */
function stackAdder(factors: readonly Factors[], width: number, size: number): EntryChange {
  return (out, from) => {
    for (let done = 0; done < out.length;) {
      const expert = Math.floor((from + done) / size);
      const start = from + done - expert * size;
      const count = Math.min(size - start, out.length - done);
      const own = factors[expert];
      if (own === undefined) throw new RangeError(`there is no expert ${expert}`);
      addFactors(out.subarray(done, done + count), start, width, own);
      done += count;
    }
  };
}

/** What LoRA does to a weight. @param width entries a row, as it is stored */
export function loraChange(lora: Lora, width: number): EntryChange {
  const { experts, lengths } = lora;
  if (experts && experts.index === undefined) {
    const all = Array.from({ length: experts.count }, (_, index) =>
      factorsOf(partOfExpert(lora, experts, index)),
    );
    const { left, rank } = at(all, 0);
    return stackAdder(all, width, (left.length / rank) * width);
  }
  const own = experts?.index === undefined ? lora : partOfExpert(lora, experts, experts.index);
  const factors = factorsOf(own);
  return (out, from) => {
    addFactors(out, from, width, factors);
    if (lengths) setRowLengths(out, from, width, lengths);
  };
}
