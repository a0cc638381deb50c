/** Rows of Arrow files, as `datasets` saves them to disk. */
import { readFile, stat } from "node:fs/promises";
import { isRecord } from "../checkpoint/files.js";
import { messageOf, isSystemError, UserError } from "../errors.js";
import { at } from "../at.js";
import { checkBatch, checkHeaders } from "./arrow-check.js";
import type { Row } from "./columns.js";
import { plainNumbers } from "./parquet.js";

/** A file is read whole: a larger one is better kept as parquet, which is read in groups of rows. */
const mostFileBytes = 2 ** 31 - 1;

/** Lists of numbers come as typed arrays, in objects too; bytes stay what they are. */
function plainLists(value: unknown): unknown {
  if (value instanceof Uint8Array) return value;
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<number>);
  if (Array.isArray(value)) return value.map(plainLists);
  if (!isRecord(value) || value instanceof Date) return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, plainLists(one)]));
}

/** The rows of an Arrow file or stream. Held: the file. */
export async function* arrowRows(path: string): AsyncGenerator<Row> {
  const { size } = await stat(path);
  if (size > mostFileBytes) throw new UserError(`${path}: it is larger than 2 GB; save it as parquet`);
  // Here: most runs read none of it.
  const { tableFromIPC } = await import("@uwdata/flechette");
  let rows: readonly object[];
  try {
    const bytes = await readFile(path);
    checkHeaders(bytes);
    const table = tableFromIPC(bytes, { useBigInt: true });
    for (const { data } of table.children)
      for (const [i, batch] of data.entries()) checkBatch(batch, at(table.children, 0).data[i]?.length ?? 0);
    rows = table.toArray();
  } catch (error) {
    if (isSystemError(error)) throw error;
    throw new UserError(`${path}: not an Arrow file that can be read (${messageOf(error)})`);
  }
  for (const [i, row] of rows.entries()) {
    const fields = Object.entries(row).map(
      ([name, value]) => [name, plainNumbers(plainLists(value))] as const,
    );
    yield { fields: Object.fromEntries(fields), where: `${path}: row ${i}` };
  }
}
