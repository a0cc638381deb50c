import { refuseIrregular } from "../checkpoint/files.js";
import { createReadStream, existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { extname, join } from "node:path";
import { createInterface } from "node:readline";
import { CsvError, parse, type Options } from "csv-parse";
import { UserError } from "../errors.js";
import { isObject, type Row } from "./columns.js";
import type { Example } from "./examples.js";
import { parseExample } from "./parse.js";
import { arrowRows } from "./arrow.js";
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
    if (!isObject(fields)) throw new UserError(`${where}: not a JSON object`);
    yield { fields, where };
  }
}

/** CoLA's published files for training have no header line (its test file has one). */
const headless: Record<string, string[]> = { cola: ["source", "label", "original", "sentence"] };

async function firstLine(path: string): Promise<string> {
  for await (const line of createInterface({ input: createReadStream(path, "utf8") })) return line;
  return "";
}

/** Column names for a file without a header; undefined where its first line is one. */
async function headlessColumns(path: string, task: NamedTask): Promise<string[] | undefined> {
  const names = headless[task.id];
  if (!names) return undefined;
  const first = (await firstLine(path)).trim();
  if (/(^|[\t,])sentence([\t,]|$)/i.test(first)) return undefined;
  return names;
}

/** How a file of separated values is to be read. */
async function separatedOptions(path: string, task: NamedTask): Promise<Options> {
  const common = {
    columns: (await headlessColumns(path, task)) ?? true,
    bom: true,
    skip_empty_lines: true,
    info: true,
  };
  if (extname(path) === ".csv") return { ...common, delimiter: ",", quote: '"', relax_column_count: false };
  // GLUE's tab-separated files use quotation marks as plain characters.
  return { ...common, delimiter: "\t", quote: false, relax_column_count: true };
}

/** A line of separated values, as the parser gives it. */
interface SeparatedLine {
  readonly record: Row["fields"];
  readonly info: { readonly lines: number };
}

async function* separatedRows(path: string, task: NamedTask): AsyncGenerator<Row> {
  const options = await separatedOptions(path, task);
  const source = createReadStream(path);
  const parser = source.pipe(parse(options));
  source.on("error", (error) => parser.destroy(error));
  const lines: AsyncIterable<SeparatedLine> = parser;
  try {
    for await (const { record, info } of lines) yield { fields: record, where: `${path}:${info.lines}` };
  } catch (error) {
    if (error instanceof CsvError && error.code.startsWith("CSV_RECORD_INCONSISTENT"))
      throw new UserError(
        `${path}: ${error.message}; a text with a separator in it must stand in quotation marks`,
      );
    if (error instanceof CsvError) throw new UserError(`${path}: ${error.message}`);
    // A system's error is explained elsewhere.
    throw error;
  } finally {
    source.destroy();
  }
}

/** What of a task its files are found and read by. */
type NamedTask = Pick<Task, "id">;

/** The rows of a file, as they stand there. @throws UserError where it is a folder, or a pipe or device */
export async function* rowsIn(path: string, task: NamedTask): AsyncGenerator<Row> {
  await refuseIrregular(path);
  if (extname(path) === ".jsonl") yield* jsonlRows(path);
  else if (extname(path) === ".parquet") yield* parquetRows(path);
  else if (extname(path) === ".arrow") yield* arrowRows(path);
  else yield* separatedRows(path, task);
}

/**
 * Reads the examples of a file; none where no row carries a label (a published test set hides them).
 * @param mayLack of texts to be said: reads those that nobody says, too
 * @throws UserError for an empty file, a bad row (with its line), or a file in which only some rows are labelled
 */
export async function readExamples(path: string, task: Task, mayLack = false): Promise<Example[]> {
  const examples: Example[] = [];
  let count = 0;
  let unlabelled: string | undefined;
  for await (const row of rowsIn(path, task)) {
    count++;
    const example = parseExample(row, task, mayLack);
    if (example) examples.push(example);
    else unlabelled ??= row.where;
  }
  if (examples.length > 0 && unlabelled !== undefined)
    throw new UserError(`${unlabelled}: there is no label, although other rows of the file have one`);
  if (count === 0) throw new UserError(`${path}: there are no examples in it`);
  return examples;
}

/** What files of a split may be called. */
const splitStems = {
  train: ["train", "msr_paraphrase_train"],
  validation: ["validation", "val", "dev", "dev_matched"],
  test: ["test", "msr_paraphrase_test"],
} as const;
export const fileSplits = ["train", "validation", "test"] as const;
export type FileSplit = (typeof fileSplits)[number];
const extensions = [".jsonl", ".tsv", ".csv", ".txt", ".parquet", ".arrow"];

/** The files that a split was read from, and what to call them. */
export interface DataFiles {
  readonly name: string;
  readonly files: readonly string[];
}

/** What a split's file is called among some names, the first stem before the others. */
const nameOf = (
  stems: readonly string[],
  names: readonly string[],
  allowed: readonly string[],
): string | undefined =>
  stems.flatMap((stem) => allowed.map((extension) => stem + extension)).find((name) => names.includes(name));

/** The names of a split's shards, `train-00000-of-00002.parquet` and the others; none where there are none. */
const shardsOf = (stems: readonly string[], names: readonly string[]): string[] =>
  stems
    .map((stem) => names.filter((name) => name.startsWith(`${stem}-`) && shardName.test(name)))
    .find((shards) => shards.length > 0) ?? [];
const shardName = /-\d{5}-of-(\d{5})\.(parquet|arrow)$/;

/** The shards in a folder of a split's own, as `datasets` saves them: `train/data-00000-of-00001.arrow`. */
async function shardsWithin(
  folder: string,
  stems: readonly string[],
  names: readonly string[],
): Promise<string[]> {
  const own = stems.find((stem) => names.includes(stem));
  if (own === undefined || !(await stat(join(folder, own))).isDirectory()) return [];
  const inside = (await readdir(join(folder, own))).filter((name) => shardName.test(name));
  return inside.sort().map((name) => join(own, name));
}

/**
 * A folder's files by split: one, or its shards. @throws UserError where a shard is missing
 */
export async function findFiles(
  folder: string,
  allowed: readonly string[],
): Promise<Partial<Record<FileSplit, DataFiles>>> {
  const names = (await readdir(folder)).sort();
  const found: Partial<Record<FileSplit, DataFiles>> = {};
  for (const split of fileSplits) {
    const stems = splitStems[split];
    const whole = nameOf(stems, names, allowed);
    if (whole !== undefined) {
      const path = join(folder, whole);
      found[split] = { name: path, files: [path] };
    } else if (allowed.includes(".parquet")) {
      const shards = shardsOf(stems, names);
      const all = shards.length > 0 ? shards : await shardsWithin(folder, stems, names);
      const files = all.map((name) => join(folder, name));
      const [first] = files;
      if (first === undefined) continue;
      const count = Number(shardName.exec(first)?.[1]);
      if (files.length !== count)
        throw new UserError(`${first}: there are ${files.length} of its ${count} shards`);
      found[split] = { name: first, files };
    }
  }
  return found;
}

/** What there is, where there is no folder for a task. */
async function dataHint(dataFolder: string): Promise<string> {
  if (existsSync(dataFolder)) {
    const folders = (await readdir(dataFolder)).filter((name) => !extname(name));
    if (folders.length > 0) return `it has ${folders.join(", ")}`;
  }
  return `${dataFolder} is empty or missing`;
}

/** The files of a task's folder by split. @throws UserError where the folder or every split is missing. */
export async function findSplits(
  dataFolder: string,
  task: NamedTask,
): Promise<Partial<Record<FileSplit, DataFiles>>> {
  const folder = join(dataFolder, task.id);
  if (!existsSync(folder))
    throw new UserError(
      `${folder}: no data for task ${task.id}; ${await dataHint(dataFolder)}. Name the folder ` +
        "that holds it with --data",
    );
  const found = await findFiles(folder, extensions);
  if (Object.keys(found).length === 0) {
    throw new UserError(
      `${folder}: it holds none of ${Object.values(splitStems)
        .map(([name]) => name)
        .join(", ")} as ${extensions.join(", ")} (${(await readdir(folder)).join(", ")})`,
    );
  }
  return found;
}
