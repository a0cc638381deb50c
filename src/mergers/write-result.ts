import { rm } from "node:fs/promises";
import { join } from "node:path";
import { removeWeights } from "../checkpoint/write.js";
import { loadTaskVectors } from "../merge/vectors.js";
import { makeTable, rowOf, type Table } from "../merge/table.js";
import { writeLinearAdapter } from "./adapters.js";
import { adapterForm } from "../checkpoint/write-form.js";
import type { Inputs } from "../inputs/open.js";
import type { MergeOptions } from "../config/options.js";
import { writeModel } from "../folder/weights.js";

/** The row of a layer of the experts seen as models, in a table that was trained with adapters beside the weights. */
const rowFor = (rows: ReadonlyMap<string, number>, id: string): number | undefined =>
  rows.get(id) ?? rows.get(id.replace(/\.(weight|bias)$/, ".ia3_l"));

/**
 * Writes what a table says, from the experts' own files, whatever packing training had: as an adapter
 * where all experts are adapters of one kind (unless `write` says otherwise), else as a model, into
 * which adapters are folded.
 */
export async function writeResult(
  out: string,
  inputs: Inputs,
  table: Table,
  {
    write,
    dtype,
    shardSize,
    granularity,
  }: Pick<MergeOptions, "write" | "dtype" | "shardSize" | "granularity">,
): Promise<void> {
  const { family, head, vectors, model, plain, columns } = inputs;
  const type = dtype === "auto" ? undefined : dtype;
  if (model === plain) {
    const isRounded = vectors.packing === "bf16" || vectors.packing === "int8";
    const exact = isRounded ? vectors.fromFiles() : vectors;
    await writeModel(out, { family, head, vectors: exact, table }, type, shardSize);
    return;
  }
  const rows = new Map(vectors.layers.map(({ id }, row) => [id, row]));
  // A tree's columns are sums of experts: what is written then are products.
  const adapters = columns.every(({ terms }) => terms.length === 1)
    ? adapterForm(
        columns.map(({ terms }) => terms[0]!.member),
        write,
      )
    : undefined;
  if (adapters) {
    // Nothing of a model that an earlier run wrote here.
    await removeWeights(out);
    await rm(join(out, "config.json"), { force: true });
    const canonical = new Map([...family.base.actual].map(([name, stored]) => [stored, name]));
    const byName = new Map(
      vectors.layers.flatMap(({ names }, row) =>
        names.map((name) => [name.replace(/\.(lora_d|ia3_l)$/, ".weight"), row]),
      ),
    );
    await writeLinearAdapter(
      out,
      family.base,
      adapters,
      (weight) => {
        const row = byName.get(canonical.get(weight)!);
        // A module that every adapter leaves at nothing has no row.
        return row === undefined ? new Float64Array(table.columns) : rowOf(table, row);
      },
      type,
    );
    return;
  }
  const products = await loadTaskVectors({ base: family.base, columns }, [...plain.parameters.keys()], {
    residency: "disk",
    granularity,
    tables: plain.tables,
  });
  try {
    const whole = makeTable(products.layers.length, table.columns, (row, column) => {
      const from = rowFor(rows, products.layers[row]!.id);
      return from === undefined ? 0 : rowOf(table, from)[column]!;
    });
    await writeModel(out, { family, head, vectors: products, table: whole }, type, shardSize);
  } finally {
    products.dispose();
  }
}
