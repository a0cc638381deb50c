import type { Spec } from "vega";
import { palette } from "./figure.js";

/** Curves over a common axis. */
export interface Lines {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly points: readonly { readonly x: number; readonly y: number; readonly series: string; /** An interval around y. */ readonly low?: number; readonly high?: number }[];
  /** How x is spaced: evenly from point to point, as k = 2, 4, 8, 16 wants it (the default), or as the numbers lie. */
  readonly spacing?: "even" | "linear";
  /** Whether y begins at 0 (default: it does). */
  readonly zero?: boolean;
}

/** Curves with their points, and their intervals where they have some. */
export function linesSpec({ title, x, y, points, spacing = "even", zero = true }: Lines): Spec {
  const series = [...new Set(points.map((point) => point.series))];
  // Curves that lie on one another stay visible: the earlier is the wider.
  const values = points.map(({ low, high, ...point }) => ({ ...point, low: low ?? point.y, high: high ?? point.y, wide: Math.min(4, 1.5 + 0.4 * (series.length - series.indexOf(point.series))) }));
  const linear = spacing === "linear";
  return {
    width: 420, height: 260, title: { text: title },
    data: [{ name: "points", values }],
    scales: [
      linear ? { name: "x", type: "linear", domain: { data: "points", field: "x" }, range: "width", zero: false } : { name: "x", type: "point", domain: { data: "points", field: "x", sort: { op: "min", field: "x" } }, range: "width", padding: 0.3 },
      { name: "y", type: "linear", domain: { data: "points", fields: ["low", "high"] }, range: "height", zero, nice: true },
      { name: "colour", type: "ordinal", domain: series, range: palette },
    ],
    axes: [{ orient: "bottom", scale: "x", title: x }, { orient: "left", scale: "y", title: y, grid: true }],
    marks: [{
      type: "group", from: { facet: { name: "one", data: "points", groupby: "series" } },
      marks: [
        { type: "area", from: { data: "one" }, encode: { enter: { x: { scale: "x", field: "x" }, y: { scale: "y", field: "low" }, y2: { scale: "y", field: "high" }, fill: { scale: "colour", field: "series" }, fillOpacity: { value: 0.15 } } } },
        { type: "line", from: { data: "one" }, encode: { enter: { x: { scale: "x", field: "x" }, y: { scale: "y", field: "y" }, stroke: { scale: "colour", field: "series" }, strokeWidth: { field: "wide" } } } },
        ...(points.length > 40 * series.length ? [] : [{
          type: "symbol" as const, from: { data: "one" },
          encode: { enter: {
            x: { scale: "x", field: "x" }, y: { scale: "y", field: "y" }, fill: { scale: "colour", field: "series" }, size: { signal: "16 * datum.wide" },
            tooltip: { signal: "datum.series + ', ' + datum.x + ': ' + format(datum.y, '.4~g')" },
          } },
        }]),
      ],
    }],
    legends: [{ stroke: "colour", symbolType: "stroke", symbolStrokeWidth: 3, labelLimit: 260 }],
  };
}
