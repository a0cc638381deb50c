import type { RowGroup, SchemaTree } from "hyparquet";
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

/** The paths of a schema's columns that hold values. */
const leavesOf = ({ children, path }: SchemaTree): string[] =>
  children.length > 0 ? children.flatMap(leavesOf) : [path.join(".")];

/**
 * Refuses a group whose columns are not the schema's: what hyparquet does not put together it does not wait for, and an
 * error in it would end the process.
 */
function checkColumns(leaves: readonly string[], { columns }: RowGroup): void {
  const paths = columns.map(({ meta_data: one }) => one?.path_in_schema.join("."));
  if (paths.length !== leaves.length || paths.some((path, i) => path !== leaves[i]))
    throw new Error("its columns are not those of its schema");
}

/** The rows of a parquet file, a group of them in memory at a time. Bytes that are not said to be text stay bytes. */
export async function* parquetRows(path: string): AsyncGenerator<Row> {
  // Here: most runs read none of it.
  const { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema } =
    await import("hyparquet");
  const { compressors } = await import("hyparquet-compressors");
  try {
    const file = await asyncBufferFromFile(path);
    const metadata = await parquetMetadataAsync(file);
    const leaves = leavesOf(parquetSchema(metadata));
    let rowStart = 0;
    for (const group of metadata.row_groups) {
      checkColumns(leaves, group);
      const rowEnd = rowStart + Number(group.num_rows);
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
