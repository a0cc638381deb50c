import { at, lookUp } from "../at.js";
import { bytesPerEntry, type BasePacking, type Packing } from "../merge/packing.js";
import { partBytes, residencies, sweepBytes, type Residency } from "../merge/residency.js";
import { activationFloats, streamed, transientFloats } from "./activations.js";
import { entries, sum, type FamilyShape, type StepShape, type TensorDescription } from "./shape.js";

/** Where task vectors live and whether the model runs a block at a time. */
export interface Placement {
  readonly residency: Residency;
  readonly blockwise: boolean;
  /** Embeddings that an expert changed live on the device with all other task vectors, not in host memory. */
  readonly holdsTables?: boolean | undefined;
}

/** What a placement would take. Bytes; seconds a step. */
export interface Prediction extends Placement {
  readonly device: number;
  readonly host: number;
  /** Read from files each step. */
  readonly disk: number;
  readonly seconds: number;
}

/** How fast this machine is, measured (`calibrate` of inputs/placement.ts) or assumed. */
export interface Rates {
  /** Floating-point operations a second in large products. */
  readonly flops: number;
  /** Bytes a second that a merge reads and writes on the device. */
  readonly merge: number;
  /** Bytes a second from host memory to the device. */
  readonly upload: number;
  /** Bytes a second from the experts' files into host memory, subtracted from the base. */
  readonly read: number;
}

/** Device memory that no term below covers: token ids, heads, masks, an engine's small change. */
const constantBytes = 64 * 2 ** 20;

export interface PlanOptions {
  readonly packing: Packing;
  /** How the base is kept on the device. Default: float32. */
  readonly basePacking?: BasePacking | undefined;
  readonly density: number;
}

/** Bytes an entry of the base takes on the device. In four bits, a group of 64 has a scale. */
function baseBytes({ bytes, shape }: TensorDescription, packing: BasePacking): number {
  if (packing === "f32" || shape.length < 2) return 4;
  if (packing === "file") return Math.min(4, bytes);
  return packing === "int8" ? 1 : 0.5 + 4 / 64;
}

/** Everything the formulas need, added up once. */
function totals(
  family: FamilyShape,
  step: StepShape,
  { packing, density, basePacking = "f32" }: PlanOptions,
) {
  const plain = family.tensors.filter(({ table }) => !table);
  const tables = family.tensors.filter(({ table }) => table);
  const byName = new Map(family.tensors.map((tensor) => [tensor.name, tensor]));
  // Of a table, only the rows of a step's tokens are made.
  const made = (t: TensorDescription) => {
    if (!t.table) return entries(t);
    return Math.min(entries(t), step.tokens * at(t.shape, -1));
  };
  const weights = (names: readonly string[]) => sum(names.map((name) => made(lookUp(byName, name))));
  const blocks = family.blocks.map(({ names }) => weights(names));
  const pass = Math.min(step.tokens, step.microBatch);
  const kept = family.blocks.map(({ names }) => 4 * pass * activationFloats(family, names, step));
  const transient = 4 * pass * transientFloats(family);
  const largestTensor = Math.max(...plain.map(entries));
  return {
    n: sum(plain.map(entries)),
    nTables: sum(tables.map(entries)),
    /** Of them, those in a step's rows. */
    nRows: sum(tables.map(made)),
    fileBytes: sum(plain.map((t) => entries(t) * t.bytes)),
    allFileBytes: sum(family.tensors.map((t) => entries(t) * t.bytes)),
    // Two blocks may read one tensor, or many: it is made once.
    whole: weights([...new Set(family.blocks.flatMap(({ names }) => names))]),
    largestBlock: Math.max(...blocks),
    streamed: streamed(family, step),
    activations: sum(kept) + transient,
    blockActivations: Math.max(...kept) + transient + 8 * pass * family.width,
    passes: Math.ceil(step.tokens / pass),
    part:
      Math.min(partBytes, 4 * largestTensor * family.experts) +
      4 * Math.min(largestTensor, partBytes / 4 / family.experts),
    largestTensor,
    packed: bytesPerEntry(packing, density),
    base: sum(plain.map((t) => entries(t) * baseBytes(t, basePacking))),
    baseTables: sum(tables.map((t) => entries(t) * baseBytes(t, basePacking))),
    unpackedBase: basePacking === "f32" ? 0 : 4 * largestTensor,
    boundaries: 4 * step.tokens * family.width * family.blocks.length,
  };
}

/** What is to be placed: a family, the work of one step, how task vectors are kept, and a machine. */
export interface Workload {
  readonly family: FamilyShape;
  readonly step: StepShape;
  readonly options: PlanOptions;
  readonly rates: Rates;
}

type Totals = ReturnType<typeof totals>;

/**
 * Bytes on the device beside task vectors: the merged weights (4 N; of the largest block, blockwise), their
 * gradients (4 N, or 8 N where several passes add up; the query, key and value side by side once more), and
 * the activations of a pass.
 */
function workingBytes(t: Totals, { blockwise, residency }: Placement, workload: Workload): number {
  const gradients = 2.25 + Number(t.passes > 1);
  if (blockwise && residency !== "device" && t.streamed) {
    const { family, step } = workload;
    const pass = Math.min(step.tokens, step.microBatch);
    const activations = t.streamed.kept + 4 * pass * transientFloats(family) + 8 * pass * family.width;
    return Math.max(4 * t.streamed.largestBlock * gradients + activations, t.streamed.output) + constantBytes;
  }
  if (blockwise) return 4 * t.largestBlock * gradients + t.blockActivations + constantBytes;
  return 4 * t.whole * gradients + t.activations + constantBytes;
}

/** Bytes of base and task vectors on the device, where they live there, else of one part of them. */
function residentBytes(t: Totals, { residency, blockwise, holdsTables }: Placement, k: number): number {
  if (residency === "device") {
    // Tables, and the rows that are taken out of them.
    const tables = holdsTables === true ? t.packed * k * (t.nTables + t.nRows) : 0;
    return t.packed * k * t.n + tables + t.base + t.baseTables + t.unpackedBase;
  }
  if (blockwise && t.streamed) return t.part + 4 * t.streamed.largestTensor;
  return t.part + 4 * t.largestTensor;
}

/** Engines without kernels of their own for packed numbers unpack one tensor of all experts. */
function unpackedBytes(t: Totals, residency: Residency, { family, options }: Workload): number {
  if (options.packing === "f32") return 0;
  return residency === "device" ? 4 * family.experts * t.largestTensor : t.part;
}

/** Bytes in host memory. */
function hostBytes(t: Totals, { family }: Workload, placement: Placement): number {
  const { residency, blockwise, holdsTables } = placement;
  const k = family.experts;
  const files = family.files ?? k;
  const held = {
    device: holdsTables === true ? 0 : t.packed * k * t.nTables + (t.allFileBytes - t.fileBytes),
    host: t.packed * k * (t.n + t.nTables) + t.allFileBytes,
    disk: 0,
  }[residency];
  // What reading and packing a part takes, with what is read ahead, of every file; and five copies of
  // the largest tensor while the files are first read.
  const reading = Math.max(
    5 * 4 * Math.max(...family.tensors.map(entries)),
    12 * partBytes * Math.max(1, files / k),
  );
  if (!blockwise) return held + reading;
  // Activations between blocks, of an evaluation's sweep at most.
  return held + reading + Math.max(t.boundaries, sweepBytes);
}

/**
 * Predicts what one step takes under a placement. N: entries of all tensors but embeddings, of which
 * only rows travel. Blockwise, the activations at block boundaries lie in host memory.
 */
export function predict(workload: Workload, placement: Placement): Prediction {
  const { family, step, options, rates } = workload;
  const { residency, blockwise } = placement;
  const t = totals(family, step, options);
  const k = family.experts;
  /**
   * Times the task vectors are gone through: merged, merged again for the recomputation, multiplied
   * with the gradient.
   */
  const sweeps = blockwise ? 3 - t.largestBlock / t.whole : 2;
  const moved = sweeps * (4 + t.packed * k) * t.n;
  const flops = 2 * t.n * step.tokens * (blockwise ? 4 : 3);
  const uploaded = { device: 0, host: moved, disk: moved }[residency];
  const disk = { device: 0, host: 0, disk: sweeps * ((family.files ?? k) + 1) * t.fileBytes }[residency];
  return {
    ...placement,
    disk,
    device:
      workingBytes(t, placement, workload) +
      residentBytes(t, placement, k) +
      unpackedBytes(t, residency, workload),
    host: hostBytes(t, workload, placement),
    seconds:
      flops / rates.flops +
      (moved + 4 * sweeps * t.n) / rates.merge +
      uploaded / rates.upload +
      disk / rates.read,
  };
}

/**
 * Every placement there is, the one that is taken first where all fit, first: nothing travels, then
 * little, then all.
 */
export const placements: readonly Placement[] = [
  { residency: "device", blockwise: false },
  { residency: "host", blockwise: false },
  { residency: "device", blockwise: true },
  { residency: "host", blockwise: true },
  { residency: "disk", blockwise: false },
  { residency: "disk", blockwise: true },
];

export interface Budget {
  readonly device: number;
  readonly host: number;
  /** Device and host are one memory. */
  readonly shared: boolean;
}

export function fitsBudget({ device, host }: Prediction, budget: Budget): boolean {
  if (device > budget.device) return false;
  if (!budget.shared) return host <= budget.host;
  return device + host <= Math.max(budget.host, budget.device);
}

/**
 * A placement with tables on the device too, where that has memory of its own and the room: of them nothing travels.
 * (Sparse rows cannot be taken out of what is on the device; a packed base would be unpacked whole there for its rows,
 * or rounded, which it is not elsewhere.)
 */
export function withTables(workload: Workload, chosen: Prediction, budget: Budget): Prediction {
  const { residency, blockwise } = chosen;
  const { packing, basePacking = "f32" } = workload.options;
  const isPacked = basePacking !== "f32";
  if (budget.shared || residency !== "device" || packing === "sparse" || isPacked) return chosen;
  const held = predict(workload, { residency, blockwise, holdsTables: true });
  return fitsBudget(held, budget) ? held : chosen;
}

/** What the user asked for; `auto` leaves it open. */
export interface PlacementRequest {
  readonly residency: Residency | "auto";
  readonly blocks: "auto" | "on" | "off";
}

export const residencyChoices = ["auto", ...residencies] as const;
export const blockChoices = ["auto", "on", "off"] as const;

/**
 * The first placement that grants the request and fits the budget, or undefined where none does.
 * @param predictions in the order of {@link placements}
 */
export function choose(
  predictions: readonly Prediction[],
  request: PlacementRequest,
  budget: Budget,
): Prediction | undefined {
  return allowed(predictions, request).find((prediction) => fitsBudget(prediction, budget));
}

export const allowed = (
  predictions: readonly Prediction[],
  { residency, blocks }: PlacementRequest,
): Prediction[] =>
  predictions.filter(
    (p) =>
      (residency === "auto" || p.residency === residency) &&
      (blocks === "auto" || p.blockwise === (blocks === "on")),
  );

/**
 * SuperMerge's equation 6: 4 N + 12 · trained + 4 k N, dense float32 copies all on the device. A
 * pairwise tree: k = 2.
 * @param n entries of the model, embeddings included
 */
export const equation6 = (n: number, k: number, trained: number): number => 4 * n + 12 * trained + 4 * k * n;

/** What a loss that looks at one block at a time asks for, unless the user does: the model by blocks. */
export const blockRequest = (isByBlocks: boolean, request: PlacementRequest): PlacementRequest =>
  isByBlocks && request.blocks === "auto" ? { residency: request.residency, blocks: "on" } : request;

/** A placement as a request that names it. */
export function requestFor({ residency, blockwise }: Placement): PlacementRequest {
  return { residency, blocks: blockwise ? "on" : "off" };
}
