import { createRequire } from "node:module";
import { Resvg } from "@resvg/resvg-js";
import { parse, View, type Spec } from "vega";

/** The coefficients as people look at them: a column a layer, a row a task. */
export interface Heatmap {
  readonly title: string;
  readonly tasks: readonly string[];
  readonly layers: readonly string[];
  /** layers × tasks. */
  readonly values: readonly (readonly number[])[];
  /** What the colours mean. */
  readonly legend?: string;
}

const cellWidth = 10;

/** "encoder.layer.3.attention.self.query.weight" → what distinguishes it within a picture's width. */
const short = (layer: string): string =>
  layer.replace(/^encoder\.layer\./, "").replace("attention.", "att.").replace("embeddings", "emb").replace("LayerNorm", "norm").replace("intermediate", "inter").replace(/\.weight$/, "").replace(/\.bias$/, ".b");

/**
 * A Vega specification. Purple is negative, orange positive, white zero (PuOr, which colour-blind people can tell
 * apart), on a scale that is symmetric so that white always means "this expert has no part in this layer".
 */
function specification({ title, tasks, layers, values, legend = "coefficient" }: Heatmap): Spec {
  const bound = Math.max(0.1, ...values.flat().map(Math.abs));
  const cells = values.flatMap((row, layer) => row.map((value, task) => ({ layer: layers[layer]!, task: tasks[task]!, value })));
  return {
    $schema: "https://vega.github.io/schema/vega/v6.json",
    background: "white",
    padding: 8,
    width: Math.max(240, layers.length * cellWidth),
    height: tasks.length * 28,
    title: { text: title, anchor: "start", font: "DejaVu Sans", fontSize: 13, fontWeight: "normal" },
    config: { axis: { labelFont: "DejaVu Sans", titleFont: "DejaVu Sans" }, legend: { labelFont: "DejaVu Sans", titleFont: "DejaVu Sans" } },
    data: [{ name: "cells", values: cells }],
    scales: [
      { name: "x", type: "band", domain: { data: "cells", field: "layer" }, range: "width" },
      { name: "y", type: "band", domain: { data: "cells", field: "task" }, range: "height" },
      { name: "colour", type: "linear", domain: [-bound, 0, bound], range: ["#542788", "#f7f7f7", "#b35806"], interpolate: "lab" },
    ],
    axes: [
      { orient: "bottom", scale: "x", domain: false, ticks: false, labelAngle: -90, labelAlign: "right", labelBaseline: "middle", labelFontSize: 8, labelLimit: 200,
        encode: { labels: { update: { text: { signal: `data('short')[0][datum.value]` } } } } },
      { orient: "left", scale: "y", domain: false, ticks: false, labelFontSize: 11 },
    ],
    marks: [{
      type: "rect", from: { data: "cells" },
      encode: { enter: {
        x: { scale: "x", field: "layer" }, width: { scale: "x", band: 1 },
        y: { scale: "y", field: "task" }, height: { scale: "y", band: 1 },
        fill: { scale: "colour", field: "value" }, stroke: { value: "white" }, strokeWidth: { value: 0.5 },
        tooltip: { signal: "datum.task + ', ' + datum.layer + ': ' + format(datum.value, '.3f')" },
      } },
    }],
    legends: [{ fill: "colour", title: legend, type: "gradient", gradientLength: Math.max(60, tasks.length * 22), format: ".1f" }],
  };
}

/** Draws the heat-map as SVG. */
export async function heatmapSvg(map: Heatmap): Promise<string> {
  const spec = specification(map);
  spec.data = [...(spec.data as object[]), { name: "short", values: [Object.fromEntries(map.layers.map((layer) => [layer, short(layer)]))] }] as Spec["data"];
  return new View(parse(spec), { renderer: "none" }).toSVG();
}

/** Renders an SVG of ours to PNG bytes, with a font of its own so that it looks the same on every machine. */
export function svgToPng(svg: string): Uint8Array {
  const font = createRequire(import.meta.url).resolve("dejavu-fonts-ttf/ttf/DejaVuSans.ttf");
  return new Resvg(svg, { fitTo: { mode: "zoom", value: 2 }, font: { fontFiles: [font], loadSystemFonts: false, defaultFontFamily: "DejaVu Sans" } }).render().asPng();
}
