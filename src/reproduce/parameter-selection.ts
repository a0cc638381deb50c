import { average, given, tableOf } from "./shared.js";
import type { Experiment } from "./types.js";

const resamples = [0, 1, 2, 3, 4, 9];
const name = (n: number) => (n === 0 ? "parameter-selection" : `parameter-selection, resample ${n}`);

export const parameterSelection: readonly Experiment[] = [{
  id: "parameter-selection/multi-task", what: "experts of several tasks: parameter selection with n resamples, beside the weighted average", minutes: [3, 15],
  claims: [
    { text: "Resampling raises the average over plain selection, at some n", holds: ({ rows }) => resamples.slice(1).some((n) => average(rows, name(n))! > average(rows, name(0))!) },
    { text: "With resampling it is above task arithmetic", holds: ({ rows }) => resamples.slice(1).some((n) => average(rows, name(n))! > average(rows, "task-arithmetic")!) },
  ],
  async run(lab) {
    const { rows } = await lab.compare("selection", ["average", "task-arithmetic", ...resamples.map((resample) => given(name(resample), "parameter-selection", { resample }))]);
    return { rows, tables: [tableOf("results", rows, lab)], figures: [] };
  },
}];
