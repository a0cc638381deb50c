/** Rows of Arrow files, as `datasets` saves them to disk. */
import { readFile, stat } from "node:fs/promises";
import { messageOf, isSystemError, UserError } from "../errors.js";
import type { Row } from "./columns.js";
import { plainNumbers } from "./parquet.js";

/** A file is read whole: a larger one is better kept as parquet, which is read in groups of rows. */
const mostBytes = 2 ** 31 - 1;

/** Lists of numbers come as typed arrays; bytes stay what they are. */
function plainLists(value: unknown): unknown {
  if (ArrayBuffer.isView(value) && !(value instanceof Uint8Array))
    return Array.from(value as unknown as ArrayLike<number>);
  if (Array.isArray(value)) return value.map(plainLists);
  return value;
}

/** The rows of an Arrow file or stream. Held: the file. */
export async function* arrowRows(path: string): AsyncGenerator<Row> {
  const { size } = await stat(path);
  if (size > mostBytes) throw new UserError(`${path}: it is larger than 2 GB; save it as parquet`);
  // Here: most runs read none of it.
  const { tableFromIPC } = await import("@uwdata/flechette");
  let rows: readonly object[];
  try {
    rows = tableFromIPC(await readFile(path), { useBigInt: true }).toArray();
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
