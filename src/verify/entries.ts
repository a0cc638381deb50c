/** Entries of a result, and whether they are what they must be. */
import seedrandom from "seedrandom";
import { f32, lookUp } from "../at.js";
import { entryOf, type Checkpoint } from "../checkpoint/folder.js";
import { openSafetensors, type SafetensorsFile } from "../checkpoint/safetensors.js";
import { UserError } from "../errors.js";
import type { ExpectedEntry } from "./methods.js";
import { dtypeBytes, elements, isFloat, toFloat32, type DType } from "../tensor/dtype.js";

/** Entries from one to before another. */
export type Range = readonly [from: number, to: number];

/** Half a step of each type, relative to a number, and a little. */
const roundings: ReadonlyMap<DType, number> = new Map(
  (
    [
      ["F32", -24],
      ["F16", -11],
      ["BF16", -8],
      ["F64", -24],
    ] as const
  ).map(([dtype, power]) => [dtype, 1.01 * 2 ** power]),
);
/** Half of the smallest step of float16, and of bfloat16, which is above float32's. */
const smallest = (dtype: DType): number => (dtype === "F16" ? 2 ** -25 : 2 ** -134);

/** Entries of every tensor that are worked out again, where not all are. */
export const sampled = 16;
/** Entries that are held of each model, where all are. */
const pieceEntries = 1 << 20;

/** Which entries of a tensor are looked at. */
export function rangesToCheck(name: string, size: number, all: boolean): Range[] {
  if (all)
    return Array.from({ length: Math.ceil(size / pieceEntries) }, (_, i) => [
      i * pieceEntries,
      Math.min(size, (i + 1) * pieceEntries),
    ]);
  const draw = seedrandom(name);
  return Array.from({ length: Math.min(sampled, size) }, () => {
    const entry = Math.floor(draw() * size);
    return [entry, entry + 1];
  });
}

/** Entries of a tensor in a file. */
export async function entriesIn(
  file: Pick<TensorFile, "readRange">,
  { name, dtype }: { readonly name: string; readonly dtype: DType },
  [from, to]: Range,
): Promise<Float32Array> {
  const size = dtypeBytes[dtype];
  return toFloat32({
    dtype,
    shape: [],
    bytes: await file.readRange(name, from * size, (to - from) * size),
  });
}

/** Whether a number is what it must be, but for roundings of what it is made of and of the type that is written. */
export function isRight(found: number, right: number, magnitude: number, dtype: DType): boolean {
  // Float32 on the way: each term may be off by its rounding.
  const allowed = 8 * 2 ** -24 * magnitude + lookUp(roundings, dtype) * Math.abs(right) + smallest(dtype);
  return found === right || (allowed < Infinity && Math.abs(found - right) <= allowed);
}

/** What holds tensors: a file, or a checkpoint. */
export interface TensorFile extends Pick<SafetensorsFile, "readRange"> {
  entry(name: string): { readonly dtype: DType; readonly shape: readonly number[] } | undefined;
}

/** Entries of a checkpoint's tensor. */
export const entriesOf = (checkpoint: Checkpoint, name: string, range: Range): Promise<Float32Array> =>
  entriesIn(checkpoint, { name, dtype: entryOf(checkpoint, name).dtype }, range);

type EntryReader = (range: Range) => Promise<Float32Array>;

/** A tensor as it must stand in a result. */
export interface WrittenTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** What it is the sum of, where sums say it. */
  readonly terms?: readonly { readonly factor: number; readonly read: EntryReader }[];
  /** Where not: how its entries are worked out from whole tensors, which takes longer. */
  readonly expected?: () => Promise<(entry: number) => ExpectedEntry>;
  /** What it was in the first of its models: what is infinite there may be so in the result. */
  readonly before?: EntryReader | undefined;
}

/** What a written tensor has otherwise than it must; undefined where nothing differs. */
function differsIn(file: TensorFile | undefined, { name, dtype, shape }: WrittenTensor): string | undefined {
  const own = file?.entry(name);
  if (!own) return `"${name}" is not there`;
  if (own.dtype !== dtype || own.shape.join() !== shape.join())
    return `"${name}" is ${own.dtype} [${own.shape.join(", ")}], and must be ${dtype} [${shape.join(", ")}]`;
  return undefined;
}

/** What tensors must be, and something has otherwise; undefined where nothing differs. @param names what is there */
export function headersDiffer(
  tensors: readonly WrittenTensor[],
  names: Iterable<string>,
  holder: (name: string) => TensorFile | undefined,
): string | undefined {
  for (const tensor of tensors) {
    const what = differsIn(holder(tensor.name), tensor);
    if (what !== undefined) return what;
  }
  const known = new Set(tensors.map(({ name }) => name));
  const more = [...names].find((name) => !known.has(name));
  return more === undefined ? undefined : `"${more}" is there, and nobody wrote it`;
}

/** An entry of some that is not what it must be. */
interface WrongEntry {
  readonly at: number;
  readonly right: string;
}

/** The first of some entries that is not what its terms add up to. */
async function wrongInSum(
  own: Float32Array,
  range: Range,
  terms: NonNullable<WrittenTensor["terms"]>,
  dtype: DType,
): Promise<WrongEntry | undefined> {
  const parts = await Promise.all(
    terms.map(async ({ factor, read }) => ({ factor, values: await read(range) })),
  );
  const [first] = parts;
  for (const [i, found] of own.entries()) {
    let [right, magnitude] = [0, 0];
    for (const { factor, values } of parts) {
      const value = f32(values, i);
      right += factor * value;
      magnitude += (1 + Math.abs(factor)) * Math.abs(value);
    }
    // What is infinite by design (a mask) is so in all models.
    if (magnitude === Infinity && found === first?.values[i]) continue;
    if (!isRight(found, right, magnitude, dtype)) return { at: i, right: String(right) };
  }
  return undefined;
}

/** The first of some entries that is nothing of what it may be. */
function wrongInWhole(
  own: Float32Array,
  [from]: Range,
  rightAt: (entry: number) => ExpectedEntry,
  dtype: DType,
): WrongEntry | undefined {
  for (const [i, found] of own.entries()) {
    const { right, magnitude } = rightAt(from + i);
    if (!right.some((one) => isRight(found, one, magnitude, dtype)))
      return { at: i, right: right.join(" or ") };
  }
  return undefined;
}

/**
 * The same for the numbers of a tensor. Held: of a sum some entries of each model, else that tensor of every model.
 * @param all every one, and not a sample
 */
export async function numbersDiffer(
  file: TensorFile,
  tensor: WrittenTensor,
  all: boolean,
): Promise<string | undefined> {
  const { name, dtype, shape, terms, expected } = tensor;
  if (!isFloat(dtype) || !(terms ?? expected)) return undefined;
  const rightAt = await expected?.();
  for (const range of rangesToCheck(name, elements(shape), all)) {
    const own = await entriesIn(file, tensor, range);
    let wrong: WrongEntry | undefined;
    if (rightAt) wrong = wrongInWhole(own, range, rightAt, dtype);
    else if (terms) wrong = await wrongInSum(own, range, terms, dtype);
    if (wrong)
      return `"${name}" holds ${own[wrong.at]} at entry ${range[0] + wrong.at}, and ${wrong.right} is right`;
  }
  return undefined;
}

/** The least time for a sample, in milliseconds. */
const leastTime = 30;

/**
 * Looks at what was just written, as its files say it: every tensor's name, shape and type, and where sums say what it
 * is, a sample of its numbers, tensor by tensor for as long as a twentieth of the time since a merge began.
 * @param began by performance.now()
 * @throws UserError where something is otherwise than it must be
 */
export async function checkWritten(
  paths: readonly string[],
  tensors: readonly WrittenTensor[],
  began: number,
): Promise<void> {
  const now = performance.now();
  const until = now + Math.max(leastTime, (now - began) / 20);
  const refuse = (what: string | undefined) => {
    if (what === undefined) return;
    throw new UserError(
      `${paths[0]}: ${what}: what was written is not what the models give. Try another disk, or report it`,
    );
  };
  const files: SafetensorsFile[] = [];
  try {
    for (const path of paths) files.push(await openSafetensors(path));
    const holders = new Map(files.flatMap((file) => [...file.entries.keys()].map((name) => [name, file])));
    refuse(headersDiffer(tensors, holders.keys(), (name) => holders.get(name)));
    for (const tensor of tensors) {
      if (performance.now() > until) return;
      if (tensor.terms) refuse(await numbersDiffer(lookUp(holders, tensor.name), tensor, false));
    }
  } finally {
    for (const file of files) await file.close();
  }
}
