import type { Mark, NumericValueRef, Scale, Signal, Spec } from "vega";
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
  /** Series that stand behind the others: thin and pale, without points. */
  readonly behind?: readonly string[];
  /** A place on x that is pointed out. */
  readonly marked?: { readonly x: number; readonly text: string } | undefined;
  /** As wide as the page leaves room (default: 420 pixels). */
  readonly wide?: boolean;
}

interface ChartPoint {
  readonly x: number;
  readonly y: number;
  readonly series: string;
  /** An interval around y. */
  readonly low?: number;
  readonly high?: number;
}

/** A figure's width: that of what it stands in, where there is a page. */
export const containerWidth = (otherwise: number): Signal => {
  const width = `containerSize()[0] > 0 ? containerSize()[0] : ${otherwise}`;
  return {
    name: "width",
    init: width,
    on: [{ events: { source: "window", type: "resize" }, update: width }],
  };
};

/** As many marks on an axis as there is room for. */
export const ticksFor = { signal: "max(3, floor(width / 55))" };

const hasInterval = ({ low, high }: ChartPoint): boolean => low !== high;

interface Drawing {
  readonly series: readonly string[];
  readonly behind: readonly string[];
  /** Pixels between the intervals of two series. */
  readonly aside: number;
}

/** The points with all that their marks need. */
function drawnPoints(points: readonly ChartPoint[], { series, behind, aside }: Drawing) {
  return points.map(({ low, high, ...point }) => {
    const place = series.indexOf(point.series);
    return {
      ...point,
      low: low ?? point.y,
      high: high ?? point.y,
      // Curves that lie on one another stay visible: the earlier is the wider.
      wide: behind.includes(point.series) ? 1 : Math.min(4, 1.5 + 0.4 * (series.length - place)),
      opacity: behind.includes(point.series) ? 0.35 : 1,
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
      strokeOpacity: { field: "opacity" },
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
      opacity: { signal: "datum.opacity < 1 ? 0 : 1" },
      tooltip: { signal: "datum.series + ', ' + datum.x + ': ' + format(datum.y, '.4~g')" },
    },
  },
};

/** A line across the chart at a place on x, with its text. */
const pointedOut = ({ x, text }: NonNullable<LineChart["marked"]>): Mark[] => [
  {
    type: "rule",
    encode: {
      update: {
        x: { scale: "x", value: x },
        y: { value: 0 },
        y2: { signal: "height" },
        stroke: { value: "#888888" },
        strokeDash: { value: [4, 3] },
      },
    },
  },
  {
    type: "text",
    encode: {
      update: {
        x: { scale: "x", value: x, offset: { signal: `scale('x', ${x}) > width / 2 ? -6 : 6` } },
        y: { value: 10 },
        align: { signal: `scale('x', ${x}) > width / 2 ? 'right' : 'left'` },
        text: { value: text },
      },
    },
  },
];

/** Curves with their points, and their intervals where they have some. */
export function linesSpec({
  title,
  x,
  y,
  points,
  spacing = "even",
  zero = true,
  behind = [],
  marked,
  wide = false,
}: LineChart): Spec {
  const series = [...new Set(points.map((point) => point.series))];
  const spread = points.some(hasInterval);
  // Beyond so many, points hide the curve.
  const dotted = points.length <= 40 * series.length;
  // Intervals stand side by side.
  const aside = spread && spacing === "even" ? 5 : 0;
  return {
    ...(wide
      ? { signals: [containerWidth(420)], autosize: { type: "fit-x", contains: "padding" } }
      : { width: 420 }),
    height: 260,
    title: { text: title },
    data: [{ name: "points", values: drawnPoints(points, { series, behind, aside }) }],
    scales: [
      xScale(spacing),
      yScale(zero),
      { name: "colour", type: "ordinal", domain: series, range: palette },
    ],
    axes: [
      { orient: "bottom", scale: "x", title: x, ...(wide && { tickCount: ticksFor }) },
      { orient: "left", scale: "y", title: y, grid: true },
    ],
    marks: [
      {
        type: "group",
        from: { facet: { name: "one", data: "points", groupby: "series" } },
        marks: [...(spread ? [intervals] : []), curve, ...(dotted ? [dots] : [])],
      },
      ...(marked ? pointedOut(marked) : []),
    ],
    legends: [
      {
        stroke: "colour",
        symbolType: "stroke",
        symbolStrokeWidth: 3,
        labelLimit: 260,
        ...(wide && { orient: "top", columns: { signal: "max(1, floor(width / 150))" } }),
      },
    ],
  };
}
