import type { Mark, Spec } from "vega";
import { palette } from "./figure.js";
import { averageOf, distinct, testScore, type ResultRow } from "./rows.js";
import { containerWidth, ticksFor } from "./lines.js";

/** A method's mean over the tasks, with a 95 % interval in points of per cent. */
export interface MethodScore {
  readonly method: string;
  readonly mean: number;
  readonly low: number;
  readonly high: number;
  /** Test examples of all tasks. */
  readonly n: number;
}

/** z at 97.5 %. */
const z = 1.96;

/**
 * Means over tasks, in the order of the rows. The interval: over seeds where there are several (Student's t), else what
 * the number of test examples leaves open (each task's accuracy as a share of its n examples).
 */
export function methodScores(rows: readonly ResultRow[], tasks: readonly string[]): MethodScore[] {
  return distinct(rows.map(({ method }) => method)).flatMap((method) => {
    const own = rows.filter((row) => row.method === method && row.split === "test");
    const average = averageOf(rows, method, tasks);
    if (!average) return [];
    const counts = tasks.map((task) => own.find((row) => row.task === task)?.n ?? 0);
    const spread = tasks.map((task, i) => {
      const share = Math.min(1, Math.max(0, testScore(rows, method, task)?.mean ?? 0));
      return (share * (1 - share)) / Math.max(1, counts[i] ?? 1);
    });
    const byExamples = (z * Math.sqrt(spread.reduce((sum, one) => sum + one, 0))) / tasks.length;
    const half = average.count > 1 ? average.half : byExamples;
    const mean = 100 * average.mean;
    const n = counts.reduce((sum, one) => sum + one, 0);
    return [{ method, mean, low: Math.max(0, mean - 100 * half), high: Math.min(100, mean + 100 * half), n }];
  });
}

const atMethod = { scale: "y", field: "method", band: 0.5 };

const intervals: Mark = {
  type: "rule",
  from: { data: "averages" },
  encode: {
    update: {
      x: { scale: "x", field: "low" },
      x2: { scale: "x", field: "high" },
      y: atMethod,
      stroke: { signal: "ink" },
      strokeWidth: { value: 2 },
    },
  },
};

const averages: Mark = {
  type: "symbol",
  from: { data: "averages" },
  encode: {
    update: {
      x: { scale: "x", field: "mean" },
      y: atMethod,
      size: { value: 130 },
      shape: { value: "diamond" },
      fill: { signal: "ink" },
      tooltip: {
        signal:
          "datum.method + ': ' + format(datum.mean, '.1f') + ' % (' + format(datum.low, '.1f') + ' to ' + " +
          "format(datum.high, '.1f') + ')'",
      },
    },
  },
};

const ofTasks: Mark = {
  type: "symbol",
  from: { data: "tasks" },
  encode: {
    update: {
      x: { scale: "x", field: "value" },
      y: atMethod,
      size: { value: 60 },
      fill: { scale: "colour", field: "task" },
      fillOpacity: { value: 0.8 },
      tooltip: { signal: "datum.method + ', ' + datum.task + ': ' + format(datum.value, '.1f') + ' %'" },
    },
  },
};

/** Methods side by side: a dot a task, a diamond with its interval for their mean. */
export function methodsSpec(rows: readonly ResultRow[], tasks: readonly string[]): Spec {
  const scores = methodScores(rows, tasks);
  const dots = scores.flatMap(({ method }) =>
    tasks.flatMap((task) => {
      const score = testScore(rows, method, task);
      return score ? [{ method, task, value: 100 * score.mean }] : [];
    }),
  );
  return {
    signals: [containerWidth(420)],
    autosize: { type: "fit-x", contains: "padding" },
    height: Math.max(80, 30 * scores.length),
    data: [
      { name: "averages", values: scores },
      { name: "tasks", values: dots },
    ],
    scales: [
      {
        name: "x",
        type: "linear",
        domain: {
          fields: [
            { data: "averages", field: "low" },
            { data: "averages", field: "high" },
            { data: "tasks", field: "value" },
          ],
        },
        range: "width",
        nice: true,
        zero: false,
      },
      { name: "y", type: "band", domain: scores.map(({ method }) => method), range: "height" },
      { name: "colour", type: "ordinal", domain: [...tasks], range: palette },
    ],
    axes: [
      { orient: "bottom", scale: "x", title: "test score, %", grid: true, tickCount: ticksFor },
      { orient: "left", scale: "y", domain: false, ticks: false, labelFontSize: 12, labelLimit: 230 },
    ],
    marks: [intervals, ofTasks, averages],
    legends: [
      {
        fill: "colour",
        orient: "top",
        symbolType: "circle",
        columns: 3,
      },
    ],
  };
}
