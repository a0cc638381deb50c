import type { Spec } from "vega";
import { palette } from "./figure.js";

/** Curves over a common axis. */
export interface Lines {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly points: readonly {
    readonly x: number;
    readonly y: number;
    readonly series: string;
    /** An interval around y. */ readonly low?: number;
    readonly high?: number;
  }[];
  /**
   * How x is spaced: evenly from point to point, as k = 2, 4, 8, 16 wants it (the default), or as the
   * numbers lie.
   */
  readonly spacing?: "even" | "linear";
  /** Whether y begins at 0 (default: it does). */
  readonly zero?: boolean;
}

/** Curves with their points, and their intervals where they have some. */
export function linesSpec({ title, x, y, points, spacing = "even", zero = true }: Lines): Spec {
  const series = [...new Set(points.map((point) => point.series))];
  // Curves that lie on one another stay visible: the earlier is the wider.
  const linear = spacing === "linear";
  const spread = points.some(({ low, high }) => low !== high);
  const values = points.map(({ low, high, ...point }) => {
    const place = series.indexOf(point.series);
    // Intervals stand side by side.
    return {
      ...point,
      low: low ?? point.y,
      high: high ?? point.y,
      wide: Math.min(4, 1.5 + 0.4 * (series.length - place)),
      aside: spread && !linear ? 5 * (place - (series.length - 1) / 2) : 0,
    };
  });
  const at = { scale: "x", field: "x", offset: { field: "aside" } };
  return {
    width: 420,
    height: 260,
    title: { text: title },
    data: [{ name: "points", values }],
    scales: [
      linear
        ? { name: "x", type: "linear", domain: { data: "points", field: "x" }, range: "width", zero: false }
        : {
            name: "x",
            type: "point",
            domain: { data: "points", field: "x", sort: { op: "min", field: "x" } },
            range: "width",
            padding: 0.3,
          },
      {
        name: "y",
        type: "linear",
        domain: { data: "points", fields: ["low", "high"] },
        range: "height",
        zero,
        nice: true,
      },
      { name: "colour", type: "ordinal", domain: series, range: palette },
    ],
    axes: [
      { orient: "bottom", scale: "x", title: x },
      { orient: "left", scale: "y", title: y, grid: true },
    ],
    marks: [
      {
        type: "group",
        from: { facet: { name: "one", data: "points", groupby: "series" } },
        marks: [
          ...(spread
            ? [
                {
                  type: "rule" as const,
                  from: { data: "one" },
                  encode: {
                    enter: {
                      x: at,
                      y: { scale: "y", field: "low" },
                      y2: { scale: "y", field: "high" },
                      stroke: { scale: "colour", field: "series" },
                      strokeWidth: { value: 1.2 },
                    },
                  },
                },
              ]
            : []),
          {
            type: "line",
            from: { data: "one" },
            encode: {
              enter: {
                x: at,
                y: { scale: "y", field: "y" },
                stroke: { scale: "colour", field: "series" },
                strokeWidth: { field: "wide" },
              },
            },
          },
          ...(points.length > 40 * series.length
            ? []
            : [
                {
                  type: "symbol" as const,
                  from: { data: "one" },
                  encode: {
                    enter: {
                      x: at,
                      y: { scale: "y", field: "y" },
                      fill: { scale: "colour", field: "series" },
                      size: { signal: "16 * datum.wide" },
                      tooltip: { signal: "datum.series + ', ' + datum.x + ': ' + format(datum.y, '.4~g')" },
                    },
                  },
                },
              ]),
        ],
      },
    ],
    legends: [{ stroke: "colour", symbolType: "stroke", symbolStrokeWidth: 3, labelLimit: 260 }],
  };
}
