import type { Axis, Data, Mark, Scale, Spec } from "vega";
import { at } from "../at.js";
import { palette, shortLayer } from "./figure.js";

/** How numbers are spread, group by group. */
export interface Violins {
  readonly title: string;
  readonly layers: readonly { readonly layer: string; readonly values: readonly number[] }[];
  readonly y?: string;
}

/** The numbers, and how dense they lie around each: `most` is the density of a violin where it is densest. */
const dataOf = (layers: Violins["layers"]): Data[] => [
  {
    name: "values",
    values: layers.flatMap(({ layer, values }) =>
      values.map((value) => ({ layer: shortLayer(layer), value })),
    ),
  },
  {
    name: "density",
    source: "values",
    transform: [
      {
        type: "kde",
        field: "value",
        groupby: ["layer"],
        counts: false,
        steps: 60,
        extent: { signal: "domain('y')" },
      },
      { type: "joinaggregate", groupby: ["layer"], ops: ["max"], fields: ["density"], as: ["most"] },
    ],
  },
];

const scalesOf = (layers: Violins["layers"]): Scale[] => [
  { name: "x", type: "band", domain: layers.map(({ layer }) => shortLayer(layer)), range: "width" },
  { name: "y", type: "linear", domain: { data: "values", field: "value" }, range: "height", nice: true },
];

const layerAxis: Axis = {
  orient: "bottom",
  scale: "x",
  labelAngle: -90,
  labelAlign: "right",
  labelBaseline: "middle",
  labelFontSize: 8,
  labelLimit: 220,
  ticks: false,
};

/** @param wide pixels that a violin has */
const violin = (wide: number): Mark => ({
  type: "area",
  from: { data: "one" },
  encode: {
    enter: {
      orient: { value: "horizontal" },
      y: { scale: "y", field: "value" },
      x: { signal: `${wide / 2} - ${0.45 * wide} * datum.density / datum.most` },
      x2: { signal: `${wide / 2} + ${0.45 * wide} * datum.density / datum.most` },
      fill: { value: at(palette, 0) },
      fillOpacity: { value: 0.8 },
    },
  },
});

/** A violin a group: its density, mirrored. Each is as wide as the others where it is densest. */
export function violinsSpec({ title, layers, y = "entry of the task vector" }: Violins): Spec {
  const wide = Math.max(12, Math.min(60, 900 / layers.length));
  return {
    width: layers.length * wide,
    height: 260,
    title: { text: title },
    data: dataOf(layers),
    scales: scalesOf(layers),
    axes: [layerAxis, { orient: "left", scale: "y", title: y, grid: true }],
    marks: [
      {
        type: "group",
        from: { facet: { data: "density", name: "one", groupby: "layer" } },
        encode: { enter: { x: { scale: "x", field: "layer" }, width: { scale: "x", band: 1 } } },
        marks: [violin(wide)],
      },
    ],
  };
}
