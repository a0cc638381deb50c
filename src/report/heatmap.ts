import type { Axis, Legend, Mark, Scale, Signal, Spec } from "vega";
import { at } from "../at.js";
import { shortLayer } from "./figure.js";

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
  readonly history?: readonly Snapshot[] | undefined;
}

/** The numbers at a step, layers × tasks. */
interface Snapshot {
  readonly step: number | string;
  readonly values: readonly (readonly number[])[];
}

const cellWidth = 10;

/** The largest size of any number, and not nothing. */
const largestSize = (shots: readonly Snapshot[]): number =>
  Math.max(
    0.1,
    ...shots.map(({ values }) => Math.max(...values.map((row) => Math.max(...row.map(Math.abs))))),
  );

/** A cell a layer, task and snapshot. */
const cellsOf = ({ layers, tasks }: Heatmap, shots: readonly Snapshot[]) =>
  shots.flatMap(({ values }, shot) =>
    values.flatMap((row, layer) =>
      row.map((value, task) => ({ layer: at(layers, layer), task: at(tasks, task), value, shot })),
    ),
  );

/** Which snapshot is shown: the last, or where a slider stands. */
function shownSnapshot(count: number): Signal[] {
  if (count === 1) return [{ name: "shot", value: 0 }];
  const last = count - 1;
  return [
    { name: "shot", value: last, bind: { input: "range", min: 0, max: last, step: 1, name: "training " } },
    { name: "at", update: `data('steps')[shot].step` },
  ];
}

const scales = ({ layers, tasks }: Heatmap, bound: number): Scale[] => [
  { name: "x", type: "band", domain: [...layers], range: "width" },
  { name: "y", type: "band", domain: [...tasks], range: "height" },
  {
    name: "colour",
    type: "linear",
    domain: [-bound, 0, bound],
    range: ["#542788", "#f7f7f7", "#b35806"],
    interpolate: "lab",
  },
];

const axes: Axis[] = [
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
];

const cells: Mark = {
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
};

/** Names the snapshot that the slider stands on. */
const stepLabel: Mark = {
  type: "text",
  encode: {
    update: {
      x: { signal: "width" },
      y: { value: -10 },
      align: { value: "right" },
      text: { signal: "isNumber(at) ? 'step ' + at : at" },
    },
  },
};

const colourLegend = ({ tasks, legend = "coefficient" }: Heatmap): Legend => ({
  fill: "colour",
  title: legend,
  type: "gradient",
  gradientLength: Math.max(60, tasks.length * 22),
  format: ".1f",
});

/**
 * A Vega specification. Purple is negative, orange positive, white zero (PuOr, which colour-blind people can tell
 * apart), on a scale that is symmetric so that white always means "this expert has no part in this layer".
 */
export function heatmapSpec(map: Heatmap): Spec {
  const { title, tasks, layers, values, bound, history = [] } = map;
  // What was written comes last: it need not be the last step's.
  const shots = [...history, { step: "as written", values }];
  return {
    width: Math.max(240, layers.length * cellWidth),
    height: tasks.length * 28,
    title: { text: title },
    signals: shownSnapshot(shots.length),
    data: [
      { name: "steps", values: shots.map(({ step }) => ({ step })) },
      { name: "all", values: cellsOf(map, shots) },
      { name: "cells", source: "all", transform: [{ type: "filter", expr: "datum.shot === shot" }] },
      { name: "short", values: [Object.fromEntries(layers.map((layer) => [layer, shortLayer(layer)]))] },
    ],
    scales: scales(map, bound ?? largestSize(shots)),
    axes,
    marks: shots.length > 1 ? [cells, stepLabel] : [cells],
    legends: [colourLegend(map)],
  };
}
