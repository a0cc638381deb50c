import { bytesPerEntry, type Packing } from "../merge/packing.js";
import { partBytes, residencies, sweepBytes, type Residency } from "../merge/residency.js";
import { entries, sum, type FamilyShape, type StepShape } from "./shape.js";

/** Where task vectors live and whether the model runs a block at a time. */
export interface Placement {
  readonly residency: Residency;
  readonly blockwise: boolean;
}

/** What a placement would take. Bytes; seconds a step. */
export interface Prediction extends Placement {
  readonly device: number;
  readonly host: number;
  /** Read from files each step. */
  readonly disk: number;
  readonly seconds: number;
}

/** How fast this machine is, measured (inputs/calibrate.ts) or assumed. */
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

/**
 * Floats that autodiff keeps for a token of a block, from the widths of its products: each product's result, what its
 * activation function keeps, and what normalisation and attention keep beside it. Attention adds a
 * score for each head and token of the row. Measured on BERT's blocks: some 50 widths, of which the
 * products' results are 9.
 */
function activationFloats(family: FamilyShape, names: readonly string[], { length }: StepShape): number {
  const inside = new Set(names);
  const outs = sum(
    family.tensors
      .filter(({ name, shape, table }) => inside.has(name) && shape.length === 2 && !table)
      .map(({ shape }) => shape[0]!),
  );
  return 5.4 * outs + family.heads * length;
}

/**
 * Floats a token that the backward of one operation takes for itself: of GELU, seven times the widest
 * product's result.
 */
const transientFloats = (family: FamilyShape): number =>
  7 *
  Math.max(
    ...family.tensors
      .filter(({ shape, table }) => shape.length === 2 && !table)
      .map(({ shape }) => Math.min(shape[0]!, 4 * family.width)),
  );

export interface PlanOptions {
  readonly packing: Packing;
  readonly density: number;
}

/** Everything the formulas need, added up once. */
function totals(family: FamilyShape, step: StepShape, { packing, density }: PlanOptions) {
  const plain = family.tensors.filter(({ table }) => !table);
  const tables = family.tensors.filter(({ table }) => table);
  const byName = new Map(family.tensors.map((tensor) => [tensor.name, tensor]));
  const weights = (names: readonly string[]) =>
    sum(
      names
        .map((name) => byName.get(name)!)
        .map((t) => (t.table ? Math.min(entries(t), step.tokens * t.shape.at(-1)!) : entries(t))),
    );
  const blocks = family.blocks.map(({ names }) => weights(names));
  const pass = Math.min(step.tokens, step.microBatch);
  const kept = family.blocks.map(({ names }) => 4 * pass * activationFloats(family, names, step));
  const transient = 4 * pass * transientFloats(family);
  const largestTensor = Math.max(...plain.map(entries));
  return {
    n: sum(plain.map(entries)),
    nTables: sum(tables.map(entries)),
    fileBytes: sum(plain.map((t) => entries(t) * t.bytes)),
    allFileBytes: sum(family.tensors.map((t) => entries(t) * t.bytes)),
    whole: sum(blocks),
    largestBlock: Math.max(...blocks),
    activations: sum(kept) + transient,
    blockActivations: Math.max(...kept) + transient + 8 * pass * family.width,
    passes: Math.ceil(step.tokens / pass),
    part:
      Math.min(partBytes, 4 * largestTensor * family.experts) +
      4 * Math.min(largestTensor, partBytes / 4 / family.experts),
    largestTensor,
    packed: bytesPerEntry(packing, density),
    boundaries: 4 * step.tokens * family.width * family.blocks.length,
  };
}

/**
 * Predicts what one step takes under a placement. N: entries of all tensors but embeddings, of which
 * only rows travel. On the device: the merged weights (4 N; of the largest block, blockwise), their
 * gradients (4 N, or 8 N where several passes add up; the query, key and value side by side once more),
 * the activations of a pass, and the base and task vectors where they live there, else one part of
 * them. Blockwise, the activations at block boundaries lie in host memory.
 */
export function predict(
  family: FamilyShape,
  step: StepShape,
  options: PlanOptions,
  rates: Rates,
  placement: Placement,
): Prediction {
  const { residency, blockwise } = placement;
  const t = totals(family, step, options);
  const k = family.experts;
  const weights = blockwise ? t.largestBlock : t.whole;
  const working =
    4 * weights * (2.25 + (t.passes > 1 ? 1 : 0)) +
    (blockwise ? t.blockActivations : t.activations) +
    constantBytes;
  // Engines without kernels of their own for packed numbers unpack one tensor of all experts.
  const oneUnpacked = residency === "device" ? 4 * k * t.largestTensor : t.part;
  const unpacked = options.packing === "f32" ? 0 : oneUnpacked;
  const resident =
    residency === "device" ? (4 + t.packed * k) * t.n + 4 * t.nTables : t.part + 4 * t.largestTensor;
  const tableBytes = t.packed * k * t.nTables + (t.allFileBytes - t.fileBytes);
  const held = { device: tableBytes, host: t.packed * k * (t.n + t.nTables) + t.allFileBytes, disk: 0 }[
    residency
  ];
  /**
   * Times the task vectors are gone through: merged, merged again for the recomputation, multiplied
   * with the gradient.
   */
  const sweeps = blockwise ? 3 - t.largestBlock / t.whole : 2;
  const moved = sweeps * (4 + t.packed * k) * t.n;
  const flops = 2 * t.n * step.tokens * (blockwise ? 4 : 3);
  const disk = residency === "disk" ? sweeps * ((family.files ?? k) + 1) * t.fileBytes : 0;
  return {
    ...placement,
    disk,
    device: working + resident + unpacked,
    // What reading and packing a part takes, with what is read ahead, of every file; and five copies of
    // the largest tensor while the files are first read. Block by block, activations between blocks, of
    // an evaluation's sweep at most.
    host:
      held +
      Math.max(
        5 * 4 * Math.max(...family.tensors.map(entries)),
        12 * partBytes * Math.max(1, (family.files ?? k) / k),
      ) +
      (blockwise ? Math.max(t.boundaries, sweepBytes) : 0),
    seconds:
      flops / rates.flops +
      (moved + 4 * sweeps * t.n) / rates.merge +
      (residency === "device" ? 0 : moved / rates.upload) +
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

export const fits = ({ device, host }: Prediction, budget: Budget): boolean =>
  device <= budget.device &&
  (budget.shared ? device + host <= Math.max(budget.host, budget.device) : host <= budget.host);

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
  return allowed(predictions, request).find((prediction) => fits(prediction, budget));
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

/** A placement as a request that names it. */
export function requestFor({ residency, blockwise }: Placement): PlacementRequest {
  return { residency, blocks: blockwise ? "on" : "off" };
}
