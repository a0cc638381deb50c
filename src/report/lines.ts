import { parse, View, type Spec } from "vega";

/** Curves over a common axis. */
export interface Lines {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly points: readonly { readonly x: number; readonly y: number; readonly series: string }[];
}

const font = { labelFont: "DejaVu Sans", titleFont: "DejaVu Sans", titleFontWeight: "normal" as const };

/** Draws curves with their points as SVG; x is spaced evenly, as k = 2, 4, 8, 16 wants it. */
export async function linesSvg({ title, x, y, points }: Lines): Promise<string> {
  const series = [...new Set(points.map((point) => point.series))];
  const spec: Spec = {
    $schema: "https://vega.github.io/schema/vega/v6.json",
    background: "white", padding: 8, width: 420, height: 260,
    title: { text: title, anchor: "start", font: "DejaVu Sans", fontSize: 13, fontWeight: "normal" },
    config: { axis: font, legend: font },
    // Curves that lie on one another stay visible: the earlier is the wider.
    data: [{ name: "points", values: points.map((point) => ({ ...point, wide: series.length - series.indexOf(point.series) })) }],
    scales: [
      { name: "x", type: "point", domain: { data: "points", field: "x", sort: { op: "min", field: "x" } }, range: "width", padding: 0.3 },
      { name: "y", type: "linear", domain: { data: "points", field: "y" }, range: "height", zero: true, nice: true },
      { name: "colour", type: "ordinal", domain: series, range: ["#b35806", "#f1a340", "#542788", "#998ec3", "#1b7837", "#7fbf7b"] },
    ],
    axes: [{ orient: "bottom", scale: "x", title: x }, { orient: "left", scale: "y", title: y, grid: true }],
    marks: [{
      type: "group", from: { facet: { name: "one", data: "points", groupby: "series" } },
      marks: [
        { type: "line", from: { data: "one" }, encode: { enter: { x: { scale: "x", field: "x" }, y: { scale: "y", field: "y" }, stroke: { scale: "colour", field: "series" }, strokeWidth: { field: "wide" } } } },
        { type: "symbol", from: { data: "one" }, encode: { enter: { x: { scale: "x", field: "x" }, y: { scale: "y", field: "y" }, fill: { scale: "colour", field: "series" }, size: { signal: "30 + 25 * datum.wide" } } } },
      ],
    }],
    legends: [{ stroke: "colour", symbolType: "stroke", symbolStrokeWidth: 3 }],
  };
  return new View(parse(spec), { renderer: "none" }).toSVG();
}
