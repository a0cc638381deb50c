import { at } from "../at.js";
import { toText } from "./table.js";
import { textIf } from "./caption.js";

/** A placement as the table shows it. Bytes; seconds a step. */
export interface PlacementRow {
  readonly residency: string;
  readonly blockwise: boolean;
  readonly holdsTables?: boolean | undefined;
  readonly device: number;
  readonly host: number;
  readonly disk: number;
  readonly seconds: number;
}

export interface MemoryTable {
  readonly what: string;
  readonly rows: readonly PlacementRow[];
  readonly chosen: PlacementRow;
  /** The user named it; it may not fit. */
  readonly asked: boolean;
  readonly budget: { readonly device: number; readonly host: number; readonly from: string };
  readonly equation6: { readonly flat: number; readonly pairwise: number };
}

/** Bytes in powers of ten, three digits. */
export function size(bytes: number): string {
  if (bytes === 0) return "–";
  const power = Math.min(4, Math.max(1, Math.floor(Math.log10(bytes) / 3)));
  const value = bytes / 1000 ** power;
  const digits = Math.max(0, 2 - Math.max(0, Math.floor(Math.log10(value))));
  return `${value.toFixed(digits)} ${at(["B", "kB", "MB", "GB", "TB"], power)}`;
}

export function duration(seconds: number): string {
  if (seconds < 1) return `${Math.max(1, Math.round(1000 * seconds))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${seconds.toFixed(0)} s`;
  const minutes = seconds / 60;
  if (minutes < 90) return `${minutes.toFixed(0)} min`;
  return `${(minutes / 60).toFixed(1)} h`;
}

/** A placement in words. */
export const placementText = ({
  residency,
  blockwise,
  holdsTables = false,
}: Pick<PlacementRow, "residency" | "blockwise" | "holdsTables">): string =>
  `${residency}${textIf(holdsTables, ", embeddings too")}${textIf(blockwise, ", by blocks")}`;

/** The placement of a run, in a line. */
export const placedText = (chosen: PlacementRow): string =>
  `task vectors: ${placementText(chosen)}; ${size(chosen.device)} on the device, ${size(chosen.host)} of ` +
  `host memory, about ${duration(chosen.seconds)} a step (\`train-merge explain\` compares the placements)`;

/** What each placement would take, the chosen one marked, and the paper's equation 6 beside it. */
export function memoryText({ what, rows, chosen, asked, budget, equation6 }: MemoryTable): string {
  const body = rows.map((row) => [
    `${row === chosen ? "*" : " "} ${placementText(row)}`,
    size(row.device),
    size(row.host),
    size(row.disk),
    duration(row.seconds),
  ]);
  return [
    what,
    toText({ head: ["  task vectors", "device", "host", "read a step", "a step, about"], body }),
    `  * taken, as ${asked ? "asked for" : "the first that fits"}: ${size(budget.device)} on ` +
      `the device (${budget.from}) and ${size(budget.host)} of host memory are there`,
    `  equation 6 of SuperMerge (dense copies on the device): ${size(equation6.flat)}; two ` +
      `experts at a time: ${size(equation6.pairwise)}`,
  ].join("\n");
}
