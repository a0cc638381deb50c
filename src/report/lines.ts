import type { Mark, NumericValueRef, Scale, Spec } from "vega";
import { palette } from "./figure.js";

/** Curves over a common axis. */
export interface LineChart {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly points: readonly ChartPoint[];
  /**
   * How x is spaced: evenly from point to point, as k = 2, 4, 8, 16 wants it (the default), or as the
   * numbers lie.
   */
  readonly spacing?: "even" | "linear";
  /** Whether y begins at 0 (default: it does). */
  readonly zero?: boolean;
}

interface ChartPoint {
  readonly x: number;
  readonly y: number;
  readonly series: string;
  /** An interval around y. */
  readonly low?: number;
  readonly high?: number;
}

const hasInterval = ({ low, high }: ChartPoint): boolean => low !== high;

/** The points with all that their marks need. @param aside pixels between the intervals of two series */
function drawnPoints(points: readonly ChartPoint[], series: readonly string[], aside: number) {
  return points.map(({ low, high, ...point }) => {
    const place = series.indexOf(point.series);
    return {
      ...point,
      low: low ?? point.y,
      high: high ?? point.y,
      // Curves that lie on one another stay visible: the earlier is the wider.
      wide: Math.min(4, 1.5 + 0.4 * (series.length - place)),
      aside: aside * (place - (series.length - 1) / 2),
    };
  });
}

function xScale(spacing: "even" | "linear"): Scale {
  if (spacing === "linear")
    return { name: "x", type: "linear", domain: { data: "points", field: "x" }, range: "width", zero: false };
  return {
    name: "x",
    type: "point",
    domain: { data: "points", field: "x", sort: { op: "min", field: "x" } },
    range: "width",
    padding: 0.3,
  };
}

const yScale = (zero: boolean): Scale => ({
  name: "y",
  type: "linear",
  domain: { data: "points", fields: ["low", "high"] },
  range: "height",
  zero,
  nice: true,
});

const atX: NumericValueRef = { scale: "x", field: "x", offset: { field: "aside" } };

const intervals: Mark = {
  type: "rule",
  from: { data: "one" },
  encode: {
    enter: {
      x: atX,
      y: { scale: "y", field: "low" },
      y2: { scale: "y", field: "high" },
      stroke: { scale: "colour", field: "series" },
      strokeWidth: { value: 1.2 },
    },
  },
};

const curve: Mark = {
  type: "line",
  from: { data: "one" },
  encode: {
    enter: {
      x: atX,
      y: { scale: "y", field: "y" },
      stroke: { scale: "colour", field: "series" },
      strokeWidth: { field: "wide" },
    },
  },
};

const dots: Mark = {
  type: "symbol",
  from: { data: "one" },
  encode: {
    enter: {
      x: atX,
      y: { scale: "y", field: "y" },
      fill: { scale: "colour", field: "series" },
      size: { signal: "16 * datum.wide" },
      tooltip: { signal: "datum.series + ', ' + datum.x + ': ' + format(datum.y, '.4~g')" },
    },
  },
};

/** Curves with their points, and their intervals where they have some. */
export function linesSpec({ title, x, y, points, spacing = "even", zero = true }: LineChart): Spec {
  const series = [...new Set(points.map((point) => point.series))];
  const spread = points.some(hasInterval);
  // Beyond so many, points hide the curve.
  const dotted = points.length <= 40 * series.length;
  // Intervals stand side by side.
  const aside = spread && spacing === "even" ? 5 : 0;
  return {
    width: 420,
    height: 260,
    title: { text: title },
    data: [{ name: "points", values: drawnPoints(points, series, aside) }],
    scales: [
      xScale(spacing),
      yScale(zero),
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
        marks: [...(spread ? [intervals] : []), curve, ...(dotted ? [dots] : [])],
      },
    ],
    legends: [{ stroke: "colour", symbolType: "stroke", symbolStrokeWidth: 3, labelLimit: 260 }],
  };
}
