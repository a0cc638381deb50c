import { makeTable, type Table } from "../merge/table.js";

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
