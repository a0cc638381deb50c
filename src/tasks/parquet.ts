import { isSystemError, messageOf, UserError } from "../errors.js";
import { isRecord } from "../checkpoint/files.js";
import type { Row } from "./columns.js";

/** Whole numbers of 64 bits as plain ones, in lists and objects too: labels and indices are small. */
export function plainNumbers(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(plainNumbers);
  if (!isRecord(value) || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, plainNumbers(one)]));
}

/** The rows of a parquet file, a group of them in memory at a time. Bytes that are not said to be text stay bytes. */
export async function* parquetRows(path: string): AsyncGenerator<Row> {
  // Here: most runs read none of it.
  const { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } = await import("hyparquet");
  const { compressors } = await import("hyparquet-compressors");
  try {
    const file = await asyncBufferFromFile(path);
    const metadata = await parquetMetadataAsync(file);
    let rowStart = 0;
    for (const { num_rows: count } of metadata.row_groups) {
      const rowEnd = rowStart + Number(count);
      const rows = await parquetReadObjects({ file, metadata, compressors, utf8: false, rowStart, rowEnd });
      for (const [i, row] of rows.entries())
        yield {
          fields: Object.fromEntries(Object.entries(row).map(([name, value]) => [name, plainNumbers(value)])),
          where: `${path}: row ${rowStart + i}`,
        };
      rowStart = rowEnd;
    }
  } catch (error) {
    // A system's error is explained elsewhere.
    if (error instanceof UserError || isSystemError(error)) throw error;
    throw new UserError(`${path}: not a parquet file that can be read (${messageOf(error)})`);
  }
}
