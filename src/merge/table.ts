/** The table of coefficients: its layers, the gates that bound its numbers, the numbers. */
import { f64 } from "../at.js";
import { blockOf } from "../block-names.js";

/** One row of the coefficient matrix and the tensors that share it. */
export interface Layer {
  readonly id: string;
  readonly names: readonly string[];
}

export const granularities = ["tensor", "module", "block", "model"] as const;
export type Granularity = (typeof granularities)[number];

/** What shares a row with a tensor: itself, its module (weight and bias), its block, or everything. */
function layerId(name: string, granularity: Granularity): string {
  const rows: Record<Granularity, string> = {
    // What adapters add to a weight shares its row: an expert changes the one or the other.
    tensor: name.replace(/\.lora_d$/, ".weight"),
    module: name.replace(/\.[^.]*$/, ""),
    block: blockOf(name),
    model: "model",
  };
  return rows[granularity];
}

/** Groups tensor names into layers, in the order in which they first appear. */
export function groupLayers(names: readonly string[], granularity: Granularity): Layer[] {
  const groups = new Map<string, string[]>();
  for (const name of names) {
    const id = layerId(name, granularity);
    const group = groups.get(id);
    if (group) group.push(name);
    else groups.set(id, [name]);
  }
  return [...groups].map(([id, members]) => ({ id, names: members }));
}

/**
 * A gate turns a trained number into a coefficient. The table is small (layers × experts), so it is kept
 * and differentiated on the host, in float64: the same on every engine.
 */
export interface Gate {
  apply(raw: number): number;
  /** d apply / d raw. */
  slope(raw: number): number;
  /** A raw value whose coefficient is `coefficient`. @throws RangeError where the gate cannot reach it. */
  inverse(coefficient: number): number;
}

/** A coefficient strictly between two bounds. @throws RangeError */
function insideOpen(coefficient: number, low: number, high: number): number {
  if (coefficient > low && coefficient < high) return coefficient;
  throw new RangeError(`${coefficient} is outside (${low}, ${high})`);
}

/** The same where the bounds belong to it. */
function insideClosed(coefficient: number, low: number, high: number): number {
  if (coefficient >= low && coefficient <= high) return coefficient;
  throw new RangeError(`${coefficient} is outside [${low}, ${high}]`);
}

export const gateNames = ["tanh", "sigmoid", "clamp", "identity"] as const;
export type GateName = (typeof gateNames)[number];

export const gates: Readonly<Record<GateName, Gate>> = {
  /** SuperMerge, eq. 4: coefficients in (−1, 1). */
  tanh: {
    apply: Math.tanh,
    slope: (raw: number) => 1 - Math.tanh(raw) ** 2,
    inverse: (c: number) => Math.atanh(insideOpen(c, -1, 1)),
  },
  sigmoid: {
    apply: (raw: number) => 1 / (1 + Math.exp(-raw)),
    slope: (raw: number) => Math.exp(-Math.abs(raw)) / (1 + Math.exp(-Math.abs(raw))) ** 2,
    inverse: (c: number) => -Math.log(1 / insideOpen(c, 0, 1) - 1),
  },
  /** AdaMerging: clamp to [0, 1]. Outside, the slope is zero and a coefficient can die, as in the authors' code. */
  clamp: {
    apply: (raw: number) => Math.min(1, Math.max(0, raw)),
    slope: (raw: number) => Number(raw >= 0 && raw <= 1),
    inverse: (c: number) => insideClosed(c, 0, 1),
  },
  /** SuperMerge's ablation (table 4): no gate. */
  identity: {
    apply: (raw: number) => raw,
    slope: () => 1,
    inverse: (c: number) => c,
  },
};

/** Coefficients that a gate can reach from a finite number, with a slope that is not nothing. */
const reach: Readonly<Record<GateName, readonly [low: number, high: number]>> = {
  tanh: [-0.999, 0.999],
  sigmoid: [0.001, 0.999],
  clamp: [0, 1],
  identity: [-Infinity, Infinity],
};

/** The nearest coefficient to this one that a gate can reach. */
export function reachable(gate: GateName, coefficient: number): number {
  const [low, high] = reach[gate];
  return Math.min(high, Math.max(low, coefficient));
}

/** A table of numbers, one row a layer and one column an expert, row after row. */
export interface Table {
  readonly rows: number;
  readonly columns: number;
  readonly values: Float64Array;
}

/** A table filled by a function of its row and column. */
export function makeTable(
  rows: number,
  columns: number,
  fill: (row: number, column: number) => number,
): Table {
  const values = Float64Array.from({ length: rows * columns }, (_, i) =>
    fill(Math.floor(i / columns), i % columns),
  );
  return { rows, columns, values };
}

export const rowOf = ({ columns, values }: Table, row: number): Float64Array =>
  values.subarray(row * columns, (row + 1) * columns);

/** Trained numbers → coefficients. */
export function applyGate(raw: Table, gate: GateName): Table {
  return { ...raw, values: raw.values.map(gates[gate].apply) };
}

/** ∂L/∂coefficient → ∂L/∂raw, by the chain rule. */
export function throughGate(gradient: Table, raw: Table, gate: GateName): Table {
  return { ...gradient, values: gradient.values.map((g, i) => g * gates[gate].slope(f64(raw.values, i))) };
}

/** The customary grid of task arithmetic's λ. */
export const lambdaGrid: readonly number[] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];

/** Methods that weight every layer alike are tables with one number, or one column of ones. */
export const constantTables = {
  /** The base itself: every coefficient 0. */
  pretrained: (layers: number, experts: number): Table => makeTable(layers, experts, () => 0),
  /** Expert `which` itself: its column 1, the others 0. */
  individual: (layers: number, experts: number, which: number): Table =>
    makeTable(layers, experts, (_, column) => Number(column === which)),
  /** Mean of the experts: base + Σ τ_i / k. */
  average: (layers: number, experts: number): Table => makeTable(layers, experts, () => 1 / experts),
  /** Task arithmetic (Ilharco et al. 2022): base + λ Σ τ_i. */
  taskArithmetic: (layers: number, experts: number, lambda: number): Table =>
    makeTable(layers, experts, () => lambda),
};
