import type { Spec } from "vega";
import { palette } from "./figure.js";
import { shortLayer } from "./names.js";

/** How numbers are spread, group by group. */
export interface Violins {
  readonly title: string;
  readonly layers: readonly { readonly layer: string; readonly values: readonly number[] }[];
  readonly y?: string;
}

/** A violin a group: its density, mirrored. Each is as wide as the others where it is densest. */
export function violinsSpec({ title, layers, y = "entry of the task vector" }: Violins): Spec {
  const wide = Math.max(12, Math.min(60, 900 / layers.length));
  return {
    width: layers.length * wide,
    height: 260,
    title: { text: title },
    data: [
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
    ],
    scales: [
      { name: "x", type: "band", domain: layers.map(({ layer }) => shortLayer(layer)), range: "width" },
      { name: "y", type: "linear", domain: { data: "values", field: "value" }, range: "height", nice: true },
    ],
    axes: [
      {
        orient: "bottom",
        scale: "x",
        labelAngle: -90,
        labelAlign: "right",
        labelBaseline: "middle",
        labelFontSize: 8,
        labelLimit: 220,
        ticks: false,
      },
      { orient: "left", scale: "y", title: y, grid: true },
    ],
    marks: [
      {
        type: "group",
        from: { facet: { data: "density", name: "one", groupby: "layer" } },
        encode: { enter: { x: { scale: "x", field: "layer" }, width: { scale: "x", band: 1 } } },
        marks: [
          {
            type: "area",
            from: { data: "one" },
            encode: {
              enter: {
                orient: { value: "horizontal" },
                y: { scale: "y", field: "value" },
                x: { signal: `${wide / 2} - ${0.45 * wide} * datum.density / datum.most` },
                x2: { signal: `${wide / 2} + ${0.45 * wide} * datum.density / datum.most` },
                fill: { value: palette[0]! },
                fillOpacity: { value: 0.8 },
              },
            },
          },
        ],
      },
    ],
  };
}
