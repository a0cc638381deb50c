import type { Spec } from "vega";
import { shortLayer } from "./names.js";

/** Numbers by row and column, as people look at them: coefficients have a column a layer, a row a task. */
export interface Heatmap {
  readonly title: string;
  readonly tasks: readonly string[];
  readonly layers: readonly string[];
  /** layers × tasks. */
  readonly values: readonly (readonly number[])[];
  /** What the colours mean. */
  readonly legend?: string;
  /** What the darkest colours stand for, where several maps are compared; else the largest of the map's own. */
  readonly bound?: number;
  /**
   * What it was at some steps of the training,  layers × tasks each: shown under a slider, where there
   * is a page for one.
   */
  readonly history?:
    | readonly { readonly step: number | string; readonly values: readonly (readonly number[])[] }[]
    | undefined;
}

const cellWidth = 10;

/**
 * A Vega specification. Purple is negative, orange positive, white zero (PuOr, which colour-blind people can tell
 * apart), on a scale that is symmetric so that white always means "this expert has no part in this layer".
 */
export function heatmapSpec({
  title,
  tasks,
  layers,
  values,
  legend = "coefficient",
  bound: shared,
  history = [],
}: Heatmap): Spec {
  // What was written comes last: it need not be the last step's.
  const shots = [...history, { step: "as written", values }];
  const bound =
    shared ??
    Math.max(
      0.1,
      ...shots.map(({ values: rows }) => Math.max(...rows.map((row) => Math.max(...row.map(Math.abs))))),
    );
  const cells = shots.flatMap(({ values: rows }, shot) =>
    rows.flatMap((row, layer) =>
      row.map((value, task) => ({ layer: layers[layer]!, task: tasks[task]!, value, shot })),
    ),
  );
  const last = shots.length - 1;
  return {
    width: Math.max(240, layers.length * cellWidth),
    height: tasks.length * 28,
    title: { text: title },
    signals:
      shots.length > 1
        ? [
            {
              name: "shot",
              value: last,
              bind: { input: "range", min: 0, max: last, step: 1, name: "training " },
            },
            { name: "at", update: `data('steps')[shot].step` },
          ]
        : [{ name: "shot", value: 0 }],
    data: [
      { name: "steps", values: shots.map(({ step }) => ({ step })) },
      { name: "all", values: cells },
      { name: "cells", source: "all", transform: [{ type: "filter", expr: "datum.shot === shot" }] },
      { name: "short", values: [Object.fromEntries(layers.map((layer) => [layer, shortLayer(layer)]))] },
    ],
    scales: [
      { name: "x", type: "band", domain: [...layers], range: "width" },
      { name: "y", type: "band", domain: [...tasks], range: "height" },
      {
        name: "colour",
        type: "linear",
        domain: [-bound, 0, bound],
        range: ["#542788", "#f7f7f7", "#b35806"],
        interpolate: "lab",
      },
    ],
    axes: [
      {
        orient: "bottom",
        scale: "x",
        domain: false,
        ticks: false,
        labelAngle: -90,
        labelAlign: "right",
        labelBaseline: "middle",
        labelFontSize: 8,
        labelLimit: 200,
        encode: { labels: { update: { text: { signal: `data('short')[0][datum.value]` } } } },
      },
      { orient: "left", scale: "y", domain: false, ticks: false, labelFontSize: 11, title: "expert" },
    ],
    marks: [
      {
        type: "rect",
        from: { data: "cells" },
        encode: {
          update: {
            x: { scale: "x", field: "layer" },
            width: { scale: "x", band: 1 },
            y: { scale: "y", field: "task" },
            height: { scale: "y", band: 1 },
            fill: { scale: "colour", field: "value" },
            stroke: { value: "white" },
            strokeWidth: { value: 0.5 },
            tooltip: { signal: "datum.task + ', ' + datum.layer + ': ' + format(datum.value, '.3f')" },
          },
        },
      },
      ...(shots.length > 1
        ? [
            {
              type: "text" as const,
              encode: {
                update: {
                  x: { signal: "width" },
                  y: { value: -10 },
                  align: { value: "right" as const },
                  text: { signal: "isNumber(at) ? 'step ' + at : at" },
                },
              },
            },
          ]
        : []),
    ],
    legends: [
      {
        fill: "colour",
        title: legend,
        type: "gradient",
        gradientLength: Math.max(60, tasks.length * 22),
        format: ".1f",
      },
    ],
  };
}
