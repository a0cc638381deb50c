import { rm } from "node:fs/promises";
import { openMember } from "../checkpoint/family.js";
import type { Tried } from "../evaluate/baselines.js";
import { evaluateTasks } from "../evaluate/evaluate.js";
import { mean } from "../report/rows.js";
import { makeTable } from "../merge/table.js";
import { columnOf } from "../merge/source.js";
import { loadTaskVectors } from "../merge/vectors.js";
import type { Method, ParameterValues } from "../methods/types.js";
import { resolveValues } from "../methods/values.js";
import { writeMerge, type DiskMerge } from "../folder/merge.js";
import { mergeContextOf, type Inputs } from "../inputs/open.js";
import type { MergeHooks } from "../config/options.js";

/** One point of a method's grid: what was tried, and how it did on the validation examples. */
export interface GridPoint extends Tried {
  readonly values: Readonly<Record<string, number | string>>;
}

type Axis = readonly [key: string, values: readonly (number | string)[]];

/** Every combination of some axes' values. */
const combinations = (axes: readonly Axis[]): Record<string, number | string>[] =>
  axes.reduce<Record<string, number | string>[]>(
    (all, [key, values]) => all.flatMap((point) => values.map((value) => ({ ...point, [key]: value }))),
    [{}],
  );

/** What a method merges in a search: everything but its values. */
export type Searched = Omit<DiskMerge, "values" | "method">;

/**
 * Tries a method's grid on the validation examples. Where its result is base + λ · (something without
 * λ), all λ are read off one merge. What the user gave is not searched.
 * @param folder for the merges that are tried; it is gone afterwards
 */
export async function searchGrid(
  folder: string,
  { method, given, merge }: { method: Method; given: Readonly<Record<string, unknown>>; merge: Searched },
  inputs: Inputs,
  hooks: MergeHooks,
): Promise<GridPoint[]> {
  const { family, plain: model, tasks, plan } = inputs;
  const axes = Object.entries(method.grid ?? {}).filter(([key]) => given[key] === undefined);
  const lambdas = method.scaled ? axes.find(([key]) => key === "lambda")?.[1] : undefined;
  const outer = combinations(axes.filter(([key]) => !(lambdas && key === "lambda")));
  const points: GridPoint[] = [];
  const of = outer.length * (lambdas?.length ?? 1);
  try {
    for (const point of outer) {
      const values: ParameterValues = resolveValues(
        method,
        { ...given, ...point, ...(lambdas && { lambda: 1 }) },
        merge.inputs.length,
      );
      await writeMerge(
        folder,
        { ...merge, method, values, dtype: "F32" },
        { ...hooks, note: () => {}, progress: () => {} },
      );
      // The merge has the base's names in its file.
      const canonical = new Map([...family.base.actual].map(([name, stored]) => [stored, name]));
      const member = await openMember("merged", folder, (name) => canonical.get(name) ?? name);
      const vectors = await loadTaskVectors(
        { base: family.base, columns: [columnOf(member)] },
        [...model.parameters.keys()],
        { residency: plan.chosen.residency, tables: model.tables },
      );
      try {
        for (const lambda of lambdas ?? [1]) {
          const table = makeTable(vectors.layers.length, 1, () => Number(lambda));
          const scores = await evaluateTasks(
            { ...mergeContextOf(inputs), model, vectors, table },
            tasks,
            "validation",
          );
          points.push({
            values: { ...point, ...(lambdas && { lambda }) },
            accuracy: mean(scores.map(({ accuracy }) => accuracy)),
            loss: mean(scores.map(({ loss }) => loss)),
          });
          hooks.progress(`${method.name}: search`, points.length, of);
        }
      } finally {
        vectors.dispose();
        await member.checkpoint.close();
      }
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return points;
}
