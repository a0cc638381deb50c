/**
 * Mixtures of experts, whose files have a matrix an expert, or all of them stacked in one tensor (transformers 5 holds
 * them so, and stores some): which of the one is which of the other.
 */
import { at } from "../at.js";
import { UserError } from "../errors.js";
import { dtypeBytes } from "../tensor/dtype.js";
import type { AdaptedPart, Adapter, AdapterPart } from "./adapter.js";
import { entryOf, type Checkpoint } from "./folder.js";
import type { TensorEntry } from "./safetensors.js";

/** What an expert's three matrices are called: gate, up and down. */
const matrixNames = [
  ["gate_proj", "up_proj", "down_proj"],
  ["w1", "w3", "w2"],
] as const;

type MatrixNames = (typeof matrixNames)[number];

/** The stacked tensors, and which of an expert's matrices each has, one above the other. */
const stacks = { gate_up_proj: [0, 1], down_proj: [2] } as const;
type StackName = keyof typeof stacks;
const isStack = (name: string | undefined): name is StackName =>
  name !== undefined && Object.hasOwn(stacks, name);

/** Models whose stacks are [experts, in, out]. */
const transposedTypes = ["gpt_oss", "llama4", "llama4_text", "openai_privacy_filter", "aria", "aria_text"];
const hasTransposedStacks = ({ config }: Checkpoint): boolean =>
  transposedTypes.includes(String(config["model_type"]));

/** LoRA of a stack. */
export type StackPart = Extract<AdapterPart, { readonly kind: "lora" }> & { readonly parameter: string };
export const isStackPart = (part: AdapterPart): part is StackPart =>
  part.kind === "lora" && part.parameter !== undefined;

/** How many experts an adapter's part has matrices of. */
const countIn = ({ file }: Adapter, { a, rank }: StackPart): number => at(file.entry(a).shape, 0) / rank;

const matrixOf = (module: string, expert: number, matrix: string): string =>
  `${module}.${expert}.${matrix}.weight`;

/** Every name that a base may have for the tensors that an adapter's part of a stack changes. */
export function stackNames(adapter: Adapter, part: StackPart): string[] {
  const { module, parameter } = part;
  const names = [`${module}.${parameter}`];
  // One more than it has: the base must not have it.
  for (let expert = 0; expert <= countIn(adapter, part); expert++)
    for (const matrix of matrixNames.flat()) names.push(matrixOf(module, expert, matrix));
  return names;
}

/** An adapter on a base, where one of its parts is of a stack. */
interface AdaptedStack {
  readonly base: Checkpoint;
  readonly adapter: Adapter;
  /** What the base calls a tensor; undefined where it has none. */
  storedAs(name: string): string | undefined;
}

type PlacedPart = readonly [stored: string, part: AdaptedPart];

/** A part's place where the base has the stack; undefined where it does not fit. */
function inStack({ base, adapter }: AdaptedStack, part: StackPart, stored: string): PlacedPart | undefined {
  const { file } = adapter;
  const [input, out] = [file.entry(part.a).shape[1], file.entry(part.b).shape[0]];
  const transposed = hasTransposedStacks(base);
  const count = countIn(adapter, part);
  const expected = transposed ? [count, input, out] : [count, out, input];
  if (entryOf(base, stored).shape.join() !== expected.join()) return undefined;
  return [stored, { ...part, transposed, experts: { count } }];
}

/** A part's places where the base has a matrix an expert; undefined where one is not there or does not fit. */
function inMatrices(place: AdaptedStack, part: StackPart, names: MatrixNames): PlacedPart[] | undefined {
  const { base, adapter, storedAs } = place;
  const { file } = adapter;
  if (!isStack(part.parameter)) return undefined;
  const matrices = stacks[part.parameter];
  const [input, out] = [file.entry(part.a).shape[1], at(file.entry(part.b).shape, 0) / matrices.length];
  const count = countIn(adapter, part);
  if (storedAs(matrixOf(part.module, count, names[0])) !== undefined) return undefined;
  const found: PlacedPart[] = [];
  for (let index = 0; index < count; index++)
    for (const [i, matrix] of matrices.entries()) {
      const stored = storedAs(matrixOf(part.module, index, names[matrix]));
      if (stored === undefined || entryOf(base, stored).shape.join() !== [out, input].join())
        return undefined;
      const rows = [i * out, (i + 1) * out] as const;
      found.push([stored, { ...part, transposed: false, experts: { count, index, rows } }]);
    }
  return found;
}

/**
 * The base's tensors that an adapter's part of a stack changes, and what of it belongs to each.
 * @throws UserError where the base has not what it was trained on
 */
export function stackPlaces(place: AdaptedStack, part: StackPart): readonly PlacedPart[] {
  const { module, parameter } = part;
  const stored = place.storedAs(`${module}.${parameter}`);
  if (stored !== undefined) {
    const one = inStack(place, part, stored);
    if (one) return [one];
  }
  for (const names of matrixNames) {
    const found = inMatrices(place, part, names);
    if (found) return found;
  }
  throw new UserError(
    `${place.adapter.folder}: what it has for "${module}.${parameter}" does not fit ${place.base.folder}; ` +
      "was it trained on this base?",
  );
}

/** A stack of a checkpoint: [experts, rows, columns], the rows of one or two matrices one above the other. */
interface StoredStack {
  readonly stored: string;
  readonly module: string;
  readonly name: StackName;
  readonly entry: TensorEntry;
}

function expertStacks(checkpoint: Checkpoint): StoredStack[] {
  if (hasTransposedStacks(checkpoint)) return [];
  return checkpoint.names.flatMap((stored) => {
    const [, module = "", name] = /^(.+\.experts)\.(\w+)$/.exec(stored) ?? [];
    const entry = entryOf(checkpoint, stored);
    // Parts of a quantised stack have no bytes of their own.
    if (!isStack(name) || entry.shape.length !== 3 || checkpoint.ref(stored).packed) return [];
    return [{ stored, module, name, entry }];
  });
}

/** Where a matrix lies within a stack. */
interface ExpertMatrix {
  readonly stored: string;
  readonly entry: TensorEntry;
  /** Bytes from the stack's first to the matrix's. */
  readonly offset: number;
}

/** The matrices of a stack, by the names that they have in files with a matrix an expert. */
function matricesIn(
  { stored, module, name, entry }: StoredStack,
  names: MatrixNames,
): [string, ExpertMatrix][] {
  const [experts, height, width] = [at(entry.shape, 0), at(entry.shape, 1), at(entry.shape, 2)];
  const matrices = stacks[name];
  const rows = height / matrices.length;
  const size = rows * width * dtypeBytes[entry.dtype];
  return Array.from({ length: experts }, (_, expert) =>
    matrices.map((matrix, i): [string, ExpertMatrix] => {
      const offset = (expert * matrices.length + i) * size;
      const start = entry.start + offset;
      const own = { dtype: entry.dtype, shape: [rows, width], start, end: start + size };
      return [matrixOf(module, expert, names[matrix]), { stored, entry: own, offset }];
    }),
  ).flat();
}

/** A checkpoint with stacks of experts seen as a matrix an expert: parts of them, nothing is read or copied. */
function withMatrices(checkpoint: Checkpoint, found: readonly StoredStack[], names: MatrixNames): Checkpoint {
  const matrices = new Map(found.map((stack) => [stack.stored, matricesIn(stack, names)]));
  const places = new Map([...matrices.values()].flat());
  return {
    ...checkpoint,
    names: checkpoint.names.flatMap((name) => matrices.get(name)?.map(([matrix]) => matrix) ?? [name]),
    entry: (name) => places.get(name)?.entry ?? checkpoint.entry(name),
    ref(name) {
      const place = places.get(name);
      if (!place) return checkpoint.ref(name);
      return { ...checkpoint.ref(place.stored), start: place.entry.start };
    },
    async read(name) {
      const place = places.get(name);
      if (!place) return checkpoint.read(name);
      const { dtype, shape, start, end } = place.entry;
      return { dtype, shape, bytes: await checkpoint.readRange(place.stored, place.offset, end - start) };
    },
    async readRange(name, start, length) {
      const place = places.get(name);
      if (!place) return checkpoint.readRange(name, start, length);
      return checkpoint.readRange(place.stored, place.offset + start, length);
    },
  };
}

/** How the matrices of a checkpoint's experts are called; undefined where it has none of its own. */
const matrixNamesOf = ({ names }: Checkpoint): MatrixNames | undefined =>
  matrixNames.find(([gate]) =>
    names.some((name) => new RegExp(`\\.experts\\.\\d+\\.${gate}\\.weight$`).test(name)),
  );

/**
 * Models of which some have a matrix an expert and others stacks, all with a matrix an expert, as transformers writes
 * them; others as they are.
 */
export function withExpertsAlike(checkpoints: readonly Checkpoint[]): readonly Checkpoint[] {
  const names = checkpoints.map(matrixNamesOf).find((one) => one !== undefined);
  if (!names) return checkpoints;
  return checkpoints.map((one) => {
    const found = expertStacks(one);
    if (found.length === 0 || "adapter" in one) return one;
    return withMatrices(one, found, names);
  });
}
