import { f64 } from "../at.js";
import { gates, type GateName } from "./gates.js";

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
