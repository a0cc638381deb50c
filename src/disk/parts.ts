/** A planned tensor as methods read it: a part of every model at a time. */
import { at } from "../at.js";
import { firstNotFinite } from "../checkpoint/numbers.js";
import type { Ref } from "../checkpoint/safetensors.js";
import { UserError } from "../errors.js";
import { zip } from "../methods/inputs.js";
import type { Part, TensorReader } from "../methods/types.js";
import { elements, rowShape } from "../tensor/dtype.js";
import type { PlannedTensor } from "./plan.js";
import { readEntries, type FileReader } from "./read.js";

/** Entries of a part: small enough that all models' stay in a core's cache. */
const partEntries = 1 << 17;

/** Where entries are from: for a message. */
interface Origin {
  readonly path: string;
  /** The model's. */
  readonly label: string;
  /** The tensor's. */
  readonly name: string;
}

/** A model's entries of a part. */
interface ReadEntries extends Origin {
  readonly values: Float32Array;
}

/**
 * Takes out what is infinite in all models alike, by design (a mask that is added to scores), and puts zeros there.
 * @param from the number of the part's first entry
 * @returns by place in the part; undefined where all numbers are finite
 * @throws UserError naming an entry that is NaN or infinite in one model and not in another
 */
function takeInfinite(all: readonly ReadEntries[], from: number): Map<number, number> | undefined {
  if (all.every(({ values }) => firstNotFinite(values) < 0)) return undefined;
  const taken = new Map<number, number>();
  const [first] = all;
  for (const { values, path, label, name } of all)
    for (const [i, value] of values.entries()) {
      if (Number.isFinite(value)) continue;
      const isShared = !Number.isNaN(value) && all.length > 1 && all.every((one) => one.values[i] === value);
      if (!isShared)
        throw new UserError(
          `${path} (${label}): "${name}" holds ${value} at entry ${from + i}; the checkpoint ` +
            "is damaged or its training diverged",
        );
      if (values === first?.values) taken.set(i, value);
    }
  for (const { values } of all) for (const i of taken.keys()) values[i] = 0;
  return taken;
}

/** Square statistics, one an input: they are read whole, where those of the tensor's own size are read by parts. */
interface SquareStatistics {
  readonly refs: readonly Ref[];
  readonly rows: number;
}

function squareStatistics({ statistics = [], statisticSize }: PlannedTensor): SquareStatistics | undefined {
  if (statistics.length === 0 || statisticSize === undefined) return undefined;
  return { refs: statistics, rows: statisticSize };
}

/** An input's, whole. */
function readSquare(files: FileReader, { refs, rows }: SquareStatistics, input: number): Float32Array {
  const out = new Float32Array(rows ** 2);
  readEntries(files, at(refs, input), 0, out);
  return out;
}

/**
 * A planned tensor as a method reads it: a part of every model at a time. Memory: (k + 2) parts, each
 * at least a row.
 * @param given what the inputs are called, where the tensor does not say
 */
export function plannedReader(
  tensor: PlannedTensor,
  given: readonly string[],
  files: FileReader,
): TensorReader {
  const { name, shape, base, inputs, statistics, labels = given } = tensor;
  const size = elements(shape);
  const { rows, width } = rowShape(shape, size);
  const step = Math.max(1, Math.floor(partEntries / Math.max(1, width))) * width;
  const square = squareStatistics(tensor);
  const named = (refs: readonly Ref[]) => zip(refs, labels.slice(0, refs.length));
  // Who reads a tensor several times checks it once; what is infinite by design is taken out each time.
  let checked = false;
  const infinite = new Set<number>();
  function readPart(start: number): Part {
    const count = Math.min(step, size - start);
    const all: ReadEntries[] = [];
    const take = (key: string, ref: Ref, label: string): Float32Array => {
      const values = files.floats(key, count);
      readEntries(files, ref, start, values);
      all.push({ values, path: ref.path, label, name });
      return values;
    };
    const ofBase = base && take("base", base, "base");
    const ofInputs = named(inputs).map(([ref, label], i) => take(`input ${i}`, ref, label));
    const taken = !checked || infinite.has(start) ? takeInfinite(all, start) : undefined;
    if (taken) infinite.add(start);
    all.length = 0;
    const found =
      statistics &&
      !square &&
      named(statistics).map(([ref, label], i) => take(`statistic ${i}`, ref, `${label}, statistic`));
    // A statistic has no number that is infinite by design.
    if (!checked) for (const one of all) takeInfinite([one], start);
    return {
      start,
      base: ofBase ?? files.floats("none", count).fill(0),
      inputs: ofInputs,
      ...(found && { statistics: found }),
      ...(taken && { infinite: taken }),
    };
  }
  return {
    name,
    labels,
    rows,
    width,
    axes: tensor.shape.length,
    transposed: tensor.transposed,
    *parts(): Generator<Part> {
      for (let start = 0; start < size; start += step) yield readPart(start);
      checked = true;
    },
    ...(square && { gram: (input: number) => readSquare(files, square, input) }),
  };
}
