import { createReadStream, existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { extname, join } from "node:path";
import { createInterface } from "node:readline";
import { parse } from "csv-parse";
import { UserError } from "../errors.js";
import { parseExample, type Example, type Row } from "./examples.js";
import { parquetRows } from "./parquet.js";
import type { Task } from "./registry.js";

async function* jsonlRows(path: string): AsyncGenerator<Row> {
  let line = 0;
  for await (const read of createInterface({ input: createReadStream(path, "utf8"), crlfDelay: Infinity })) {
    line++;
    const content = read.replace(/^\uFEFF/, "");
    if (content.trim() === "") continue;
    const where = `${path}:${line}`;
    let fields: unknown;
    try {
      fields = JSON.parse(content);
    } catch {
      throw new UserError(`${where}: not valid JSON`);
    }
    if (typeof fields !== "object" || fields === null) throw new UserError(`${where}: not a JSON object`);
    yield { fields: fields as Row["fields"], where };
  }
}

/** CoLA's published files for training have no header line (its test file has one). */
const headless: Record<string, string[]> = { cola: ["source", "label", "original", "sentence"] };

async function firstLine(path: string): Promise<string> {
  for await (const line of createInterface({ input: createReadStream(path, "utf8") })) return line;
  return "";
}

/** Column names for a file without a header; undefined where its first line is one. */
async function columnsOf(path: string, task: Task): Promise<string[] | undefined> {
  const names = headless[task.id];
  return names && !/(^|[\t,])sentence([\t,]|$)/i.test((await firstLine(path)).trim()) ? names : undefined;
}

async function* separatedRows(path: string, task: Task): AsyncGenerator<Row> {
  const csv = extname(path) === ".csv";
  const source = createReadStream(path);
  const records = source.pipe(
    parse({
      columns: (await columnsOf(path, task)) ?? true,
      delimiter: csv ? "," : "\t",
      // GLUE's tab-separated files use quotation marks as plain characters.
      quote: csv ? '"' : false,
      bom: true,
      skip_empty_lines: true,
      relax_column_count: !csv,
      info: true,
    }),
  );
  source.on("error", (error) => records.destroy(error));
  try {
    for await (const { record, info } of records as AsyncIterable<{
      record: Row["fields"];
      info: { lines: number };
    }>) {
      yield { fields: record, where: `${path}:${info.lines}` };
    }
  } catch (error) {
    // A parser's error has a code such as CSV_…; a system's error is explained elsewhere.
    if (error instanceof Error && String((error as NodeJS.ErrnoException).code).startsWith("CSV_"))
      throw new UserError(`${path}: ${error.message}`);
    throw error;
  } finally {
    source.destroy();
  }
}

function rowsOfFile(path: string, task: Task) {
  if (extname(path) === ".jsonl") return jsonlRows(path);
  return extname(path) === ".parquet" ? parquetRows(path) : separatedRows(path, task);
}

/**
 * Reads the examples of a file; none where no row carries a label (a published test set hides them).
 * @throws UserError for an empty file, a bad row (with its line), or a file in which only some rows are labelled
 */
export async function readExamples(path: string, task: Task): Promise<Example[]> {
  const rows = rowsOfFile(path, task);
  const examples: Example[] = [];
  let count = 0;
  let unlabelled: string | undefined;
  for await (const row of rows) {
    count++;
    const example = parseExample(row, task);
    if (example) examples.push(example);
    else unlabelled ??= row.where;
  }
  if (examples.length > 0 && unlabelled !== undefined)
    throw new UserError(`${unlabelled}: there is no label, although other rows of the file have one`);
  if (count === 0) throw new UserError(`${path}: there are no examples in it`);
  return examples;
}

export type FileSplit = "train" | "validation" | "test";

const splitNames: Record<FileSplit, string[]> = {
  train: ["train", "msr_paraphrase_train"],
  validation: ["validation", "val", "dev", "dev_matched"],
  test: ["test", "msr_paraphrase_test"],
};
const extensions = [".jsonl", ".tsv", ".csv", ".txt", ".parquet"];

/** The files that a split was read from, and what to call them. */
export interface DataFiles {
  readonly name: string;
  readonly files: readonly string[];
}

/**
 * A folder's files by split: one, or parquet's shards (`train-00000-of-00002.parquet`). @throws
 * UserError where a shard is missing
 */
export async function findFiles(
  folder: string,
  allowed: readonly string[],
): Promise<Partial<Record<FileSplit, DataFiles>>> {
  const names = (await readdir(folder)).sort();
  const found: Partial<Record<FileSplit, DataFiles>> = {};
  for (const [split, stems] of Object.entries(splitNames) as [FileSplit, string[]][]) {
    const one = stems
      .flatMap((stem) => allowed.map((ext) => stem + ext))
      .find((name) => names.includes(name));
    const shards =
      one !== undefined || !allowed.includes(".parquet")
        ? []
        : (stems
            .map((stem) =>
              names.filter((name) => name.startsWith(`${stem}-`) && /-\d{5}-of-\d{5}\.parquet$/.test(name)),
            )
            .find((list) => list.length > 0) ?? []);
    const files = (one === undefined ? shards : [one]).map((name) => join(folder, name));
    const count = Number(/-of-(\d{5})\.parquet$/.exec(files[0] ?? "")?.[1] ?? files.length);
    if (files.length !== count)
      throw new UserError(`${files[0]}: there are ${files.length} of its ${count} shards`);
    if (files.length) found[split] = { name: files[0]!, files };
  }
  return found;
}

/** The files of a task's folder by split. @throws UserError where the folder or every split is missing. */
export async function findSplits(
  dataFolder: string,
  task: Task,
): Promise<Partial<Record<FileSplit, DataFiles>>> {
  const folder = join(dataFolder, task.id);
  if (!existsSync(folder)) {
    const there = existsSync(dataFolder) ? (await readdir(dataFolder)).filter((name) => !extname(name)) : [];
    const hint = there.length ? `it has ${there.join(", ")}` : `${dataFolder} is empty or missing`;
    throw new UserError(
      `${folder}: no data for task ${task.id}; ${hint}. Name the folder that holds it with --data`,
    );
  }
  const found = await findFiles(folder, extensions);
  if (Object.keys(found).length === 0) {
    throw new UserError(
      `${folder}: it holds none of ${Object.values(splitNames)
        .map(([name]) => name)
        .join(", ")} as ${extensions.join(", ")} (${(await readdir(folder)).join(", ")})`,
    );
  }
  return found;
}
