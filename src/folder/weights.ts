import { join } from "node:path";
import { storedName, type Family } from "../checkpoint/family.js";
import { f64, lookUp } from "../at.js";
import { entryOf, type Checkpoint } from "../checkpoint/folder.js";
import { atomicFile, writeText } from "../checkpoint/files.js";
import { refuseWorthless } from "../checkpoint/numbers.js";
import { removeWeights, writeWeights, type TensorSource } from "../checkpoint/write.js";
import { mergedValues } from "../merge/merged.js";
import { rowOf, type Table } from "../merge/table.js";
import type { Column } from "../merge/source.js";
import type { TaskVectors } from "../merge/vectors.js";
import { headTensors } from "../models/layers.js";
import type { HeadNames } from "../models/types.js";
import { figureSvg, svgToPng } from "../report/figure.js";
import { heatmapSpec } from "../report/heatmap.js";
import { fromFloat32, isFloat, toFloat32, writtenType, type FloatDType } from "../tensor/dtype.js";
import { checkWritten, entriesOf, type WrittenTensor } from "../verify/entries.js";
import { coefficientsFile, fileNames } from "./files.js";
import { writeAround } from "./output.js";

/** What a merged model is written from. */
export interface MergedModel {
  readonly family: Family;
  readonly head: HeadNames | undefined;
  readonly vectors: TaskVectors;
  readonly table: Table;
  /** What the task vectors are of, where they were taken as they are: the result is looked at by these. */
  readonly columns?: readonly Column[] | undefined;
}

/** A stored tensor as it is, or where it is a float and a type is asked for, in that type. */
function converted(checkpoint: Checkpoint, stored: string, dtype: FloatDType | undefined): TensorSource {
  const { dtype: own, shape } = entryOf(checkpoint, stored);
  if (!isFloat(own) || own === (dtype ?? own))
    return { name: stored, dtype: own, shape, bytes: async () => (await checkpoint.read(stored)).bytes };
  const target = dtype ?? writtenType(own);
  const bytes = async () => fromFloat32(toFloat32(await checkpoint.read(stored)), target);
  return { name: stored, dtype: target, shape, bytes };
}

/** What a tensor of the result is the sum of: (1 − Σ c_i) base + Σ c_i input_i. */
function termsOf(
  { family: { base }, vectors, table, columns = [] }: MergedModel,
  name: string,
): NonNullable<WrittenTensor["terms"]> {
  const row = rowOf(table, lookUp(vectors.tensors, name).row);
  const inputs = columns.flatMap(({ terms }, column) =>
    terms.map(({ member, coefficient }) => ({ member, factor: coefficient(name) * f64(row, column) })),
  );
  const share = inputs.reduce((sum, { factor }) => sum + factor, 0);
  return [{ member: base, factor: 1 - share }, ...inputs].map(
    ({ member: { checkpoint, actual }, factor }) => ({
      factor,
      read: (range) => entriesOf(checkpoint, lookUp(actual, name), range),
    }),
  );
}

/**
 * Writes the merged model: the base's tensors in file order under the base's names. A tensor that no
 * expert changed is copied byte for byte (or converted, where `dtype` asks for another type). A head
 * that the base may carry is left out: heads belong to tasks. Holds one tensor at a time. What was written is looked at
 * afterwards.
 */
export async function writeModel(
  out: string,
  merge: MergedModel,
  dtype: FloatDType | undefined,
  shardBytes: number,
): Promise<void> {
  const began = performance.now();
  const { family, head, vectors, table, columns } = merge;
  const { base } = family;
  const changed = new Map(
    [...vectors.tensors.values()]
      .filter(({ experts }) => experts.length)
      .map(({ name }) => [storedName(base, name), name]),
  );
  const heads = headTensors(head).map((name) => base.actual.get(name));
  const sources = base.checkpoint.names
    .filter((stored) => !heads.includes(stored))
    .map((stored): TensorSource & WrittenTensor => {
      const { dtype: own, shape } = entryOf(base.checkpoint, stored);
      const merged = changed.get(stored);
      if (merged !== undefined) {
        const target = dtype ?? writtenType(own);
        const bytes = async () => {
          const values = await mergedValues(vectors, table, merged);
          refuseWorthless(stored, target, values);
          return fromFloat32(values, target);
        };
        return {
          name: stored,
          dtype: target,
          shape,
          bytes,
          ...(columns && { terms: termsOf(merge, merged) }),
        };
      }
      return converted(base.checkpoint, stored, dtype);
    });
  const files = await writeWeights(out, sources, shardBytes);
  const weightFiles = files.filter((file) => file.endsWith(".safetensors"));
  const paths = weightFiles.map((file) => join(out, file));
  try {
    await checkWritten(paths, sources, began);
  } catch (error) {
    await removeWeights(out);
    throw error;
  }
  await writeAround(out, base, dtype);
}

/** coefficients.csv, .json, .svg and .png: every layer and task, raw and gated. */
export async function writeCoefficients(
  out: string,
  vectors: TaskVectors,
  { raw, gated }: { readonly raw: Table; readonly gated: Table },
  title: string,
): Promise<void> {
  const { layers, experts: tasks } = vectors;
  const entries = layers.flatMap((layer, row) => {
    const [before, after] = [rowOf(raw, row), rowOf(gated, row)];
    return tasks.map((task, column) => ({
      layer: layer.id,
      task,
      raw: f64(before, column),
      coefficient: f64(after, column),
    }));
  });
  const csv = [
    "layer,task,raw,coefficient",
    ...entries.map(({ layer, task, raw: r, coefficient }) => `${layer},${task},${r},${coefficient}`),
  ];
  await writeText(join(out, fileNames.coefficientsCsv), `${csv.join("\n")}\n`);
  await coefficientsFile.write(out, {
    tasks,
    layers: layers.map(({ id, names: tensors }) => ({ id, names: tensors })),
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
  await writeText(join(out, fileNames.coefficientsSvg), svg);
  await atomicFile(join(out, fileNames.coefficientsPng), (write) => write(svgToPng(svg)));
}
