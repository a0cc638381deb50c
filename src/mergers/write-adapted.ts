import { rm } from "node:fs/promises";
import { join } from "node:path";
import { at, f64 } from "../at.js";
import type { AdaptedCheckpoint } from "../checkpoint/adapted.js";
import { adapterForm } from "../checkpoint/write-form.js";
import { removeWeights } from "../checkpoint/write.js";
import type { MergeOptions } from "../config/options.js";
import { fileNames } from "../folder/files.js";
import { writeModel } from "../folder/weights.js";
import type { Inputs } from "../inputs/open.js";
import { loadTaskVectors } from "../merge/vectors.js";
import { makeTable, rowOf, type Table } from "../merge/table.js";
import { chosenDType } from "../tensor/dtype.js";

export type WriteOptions = Pick<MergeOptions, "write" | "dtype" | "shardSize" | "granularity">;

/** The row of a layer of the experts seen as models, in a table that was trained with adapters beside the weights. */
const rowFor = (rows: ReadonlyMap<string, number>, id: string): number | undefined =>
  rows.get(id) ?? rows.get(id.replace(/\.(weight|bias)$/, ".ia3_l"));

/** The adapters that a table weights, where an adapter is to be written. A tree's columns are sums: none is. */
function weightedAdapters(
  { columns }: Inputs,
  write: WriteOptions["write"],
): readonly AdaptedCheckpoint[] | undefined {
  const members = columns
    .flatMap(({ terms }) => (terms.length === 1 ? terms : []))
    .map(({ member }) => member);
  return members.length === columns.length ? adapterForm(members, write, true) : undefined;
}

async function writeAdapterResult(
  out: string,
  { family, vectors }: Inputs,
  adapters: readonly AdaptedCheckpoint[],
  { table, options }: { readonly table: Table; readonly options: WriteOptions },
): Promise<void> {
  // Nothing of a model that an earlier run wrote here.
  await removeWeights(out);
  await rm(join(out, fileNames.config), { force: true });
  const canonical = new Map([...family.base.actual].map(([name, stored]) => [stored, name]));
  const rows = new Map(
    vectors.layers.flatMap((layer, row) =>
      layer.names.map((name) => [name.replace(/\.(lora_d|ia3_l)$/, ".weight"), row]),
    ),
  );
  const coefficients = (weight: string): Float64Array => {
    const row = rows.get(canonical.get(weight) ?? weight);
    // A module that every adapter leaves at nothing has no row.
    return row === undefined ? new Float64Array(table.columns) : rowOf(table, row);
  };
  const dtype = chosenDType(options.dtype) ?? "F32";
  // Only here: it brings every method and the threads with it.
  const { writeLinearAdapter } = await import("./adapters.js");
  await writeLinearAdapter({ out, base: family.base.checkpoint, adapters, dtype }, coefficients);
}

/** Folds adapters into a model: their products, weighted as the table says. */
async function writeFolded(out: string, inputs: Inputs, table: Table, options: WriteOptions): Promise<void> {
  const { family, head, vectors, plain, columns } = inputs;
  const rows = new Map(vectors.layers.map(({ id }, row) => [id, row]));
  const products = await loadTaskVectors({ base: family.base, columns }, [...plain.parameters.keys()], {
    residency: "disk",
    granularity: options.granularity,
    tables: plain.tables,
  });
  try {
    const whole = makeTable(products.layers.length, table.columns, (row, column) => {
      const from = rowFor(rows, at(products.layers, row).id);
      return from === undefined ? 0 : f64(rowOf(table, from), column);
    });
    const merged = { family, head, vectors: products, table: whole };
    await writeModel(out, merged, chosenDType(options.dtype), options.shardSize);
  } finally {
    products.dispose();
  }
}

/**
 * Writes what a table says of experts that are adapters of one kind: as an adapter (unless `write` says otherwise),
 * else as a model, into which they are folded.
 */
export async function writeAdapted(
  out: string,
  inputs: Inputs,
  table: Table,
  options: WriteOptions,
): Promise<void> {
  const adapters = weightedAdapters(inputs, options.write);
  if (adapters) await writeAdapterResult(out, inputs, adapters, { table, options });
  else await writeFolded(out, inputs, table, options);
}
