/** How several rounds of one measurement are shown: the median, and from the lowest to the highest. */
import { median } from "../../src/report/rows.js";

/** "1225 (1180–1301)" */
export function spread(values: readonly number[], digits = 0): string {
  const shown = (value: number) => value.toFixed(digits);
  return `${shown(median(values))} (${shown(Math.min(...values))}–${shown(Math.max(...values))})`;
}

/** Ratios of two sides that were measured in turns: of the medians, and from the lowest to the highest of a round. */
export function ratio(values: readonly number[], others: readonly number[], digits = 2): string {
  const rounds = values.flatMap((value, i) => {
    const other = others[i];
    return other === undefined ? [] : [value / other];
  });
  const shown = (value: number) => value.toFixed(digits);
  return `${shown(median(values) / median(others))} (${shown(Math.min(...rounds))}–${shown(Math.max(...rounds))})`;
}
