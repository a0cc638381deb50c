import { join } from "node:path";
import type { Family } from "../checkpoint/family.js";
import { atomicFile, writeText } from "../checkpoint/files.js";
import { writeWeights, type TensorSource } from "../checkpoint/write.js";
import { mergedValues } from "../merge/merged.js";
import { rowOf, type Table } from "../merge/table.js";
import type { TaskVectors } from "../merge/vectors.js";
import { headTensors } from "../models/head.js";
import type { HeadNames } from "../models/types.js";
import { figureSvg, svgToPng } from "../report/figure.js";
import { heatmapSpec } from "../report/heatmap.js";
import { fromFloat32, isFloat, toFloat32, type FloatDType } from "../tensor/dtype.js";
import { writeAround } from "./output.js";

/** What a merged model is written from. */
export interface MergedModel {
  readonly family: Family;
  readonly head: HeadNames | undefined;
  readonly vectors: TaskVectors;
  readonly table: Table;
}

/**
 * Writes the merged model: the base's tensors in file order under the base's names. A tensor that no
 * expert changed is copied byte for byte (or converted, where `dtype` asks for another type). A head
 * that the base may carry is left out: heads belong to tasks. Holds one tensor at a time.
 */
export async function writeModel(
  out: string,
  { family, head, vectors, table }: MergedModel,
  dtype: FloatDType | undefined,
  shardBytes: number,
): Promise<void> {
  const { base } = family;
  const changed = new Map(
    [...vectors.tensors.values()]
      .filter(({ experts }) => experts.length)
      .map(({ name }) => [base.actual.get(name)!, name]),
  );
  const heads = headTensors(head).map((name) => base.actual.get(name));
  const sources = base.checkpoint.names
    .filter((name) => !heads.includes(name))
    .map((name): TensorSource => {
      const entry = base.checkpoint.entry(name)!;
      const target = isFloat(entry.dtype) ? (dtype ?? entry.dtype) : entry.dtype;
      const merged = changed.get(name);
      return {
        name,
        dtype: target,
        shape: entry.shape,
        async bytes() {
          if (merged !== undefined)
            return fromFloat32(await mergedValues(vectors, table, merged), target as FloatDType);
          const tensor = await base.checkpoint.read(name);
          return target === entry.dtype ? tensor.bytes : fromFloat32(toFloat32(tensor), target as FloatDType);
        },
      };
    });
  await writeWeights(out, sources, shardBytes);
  await writeAround(out, base, dtype);
}

/** coefficients.csv, .json, .svg and .png: every layer and task, raw and gated. */
export async function writeCoefficients(
  out: string,
  vectors: TaskVectors,
  raw: Table,
  gated: Table,
  title: string,
): Promise<void> {
  const { layers, experts: tasks } = vectors;
  const entries = layers.flatMap((layer, row) =>
    tasks.map((task, column) => ({
      layer: layer.id,
      task,
      raw: rowOf(raw, row)[column]!,
      coefficient: rowOf(gated, row)[column]!,
    })),
  );
  const csv = [
    "layer,task,raw,coefficient",
    ...entries.map(({ layer, task, raw: r, coefficient }) => `${layer},${task},${r},${coefficient}`),
  ];
  await writeText(join(out, "coefficients.csv"), `${csv.join("\n")}\n`);
  await writeText(join(out, "coefficients.json"), {
    tasks,
    layers: layers.map(({ id, names }) => ({ id, names })),
    entries,
  });
  const svg = await figureSvg(
    heatmapSpec({
      title,
      tasks,
      layers: layers.map(({ id }) => id),
      values: layers.map((_, row) => Array.from(rowOf(gated, row))),
    }),
  );
  await writeText(join(out, "coefficients.svg"), svg);
  await atomicFile(join(out, "coefficients.png"), (write) => write(svgToPng(svg)));
}
