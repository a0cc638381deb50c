import { createRequire } from "node:module";
import { Resvg } from "@resvg/resvg-js";
import { parse, View, type Config, type Spec } from "vega";

/** "encoder.layer.3.attention.self.query.weight" → what distinguishes it within a picture's width. */
export const shortLayer = (layer: string): string =>
  layer
    .replace(/^encoder\.layer\./, "")
    .replace("attention.", "att.")
    .replace("embeddings", "emb")
    .replace("LayerNorm", "norm")
    .replace("intermediate", "inter")
    .replace(/\.weight$/, "")
    .replace(/\.bias$/, ".b");

/** Colours that colour-blind people can tell apart (Okabe and Ito), dark enough for thin lines. */
export const palette = [
  "#0072b2",
  "#d55e00",
  "#009e73",
  "#cc79a7",
  "#e69f00",
  "#56b4e9",
  "#5d3a9b",
  "#8c6d31",
  "#444444",
  "#a0a0a0",
];

/** What all our figures have in common. Pages in the dark lay their own colours over it. */
const figureDefaults: Config = {
  background: "white",
  title: { anchor: "start", font: "DejaVu Sans", fontSize: 13, fontWeight: "normal" },
  axis: { labelFont: "DejaVu Sans", titleFont: "DejaVu Sans", titleFontWeight: "normal", gridOpacity: 0.5 },
  legend: { labelFont: "DejaVu Sans", titleFont: "DejaVu Sans", titleFontWeight: "normal" },
  text: { font: "DejaVu Sans" },
  // What is drawn in the colour of text; pages have their own.
  signals: [{ name: "ink", value: "#1c1c1c" }],
};

/** Draws a figure as SVG. */
export const figureSvg = (spec: Spec): Promise<string> =>
  new View(
    parse({ $schema: "https://vega.github.io/schema/vega/v6.json", padding: 8, ...spec }, figureDefaults),
    {
      renderer: "none",
    },
  ).toSVG();

/** Renders an SVG of ours to PNG bytes, with a font of its own so that it looks the same on every machine. */
export function svgToPng(svg: string): Uint8Array {
  const font = createRequire(import.meta.url).resolve("dejavu-fonts-ttf/ttf/DejaVuSans.ttf");
  return new Resvg(svg, {
    fitTo: { mode: "zoom", value: 2 },
    font: { fontFiles: [font], loadSystemFonts: false, defaultFontFamily: "DejaVu Sans" },
  })
    .render()
    .asPng();
}
