/** Columns of data files: the names that published files give them, and what is in them. */
import { UserError } from "../errors.js";
import type { Task } from "./registry.js";

/** A row as a file holds it, with where it stands for error messages. */
export interface Row {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly where: string;
}

/** The names that published files give to the parts of an example, ours first. */
export const aliases = {
  first: [
    "text_a",
    "premise",
    "sentence1",
    "question1",
    "question",
    "sentence",
    "passage",
    "text",
    "#1 String",
    "content",
    "review",
    "tweet",
    "utterance",
    "query",
  ],
  second: ["text_b", "hypothesis", "sentence2", "question2", "#2 String"],
  label: [
    "label",
    "gold_label",
    "is_duplicate",
    "Quality",
    "answer",
    "labels",
    "class",
    "category",
    "target",
    "intent",
    "emotion",
    "sentiment",
  ],
  number: ["label", "score", "labels", "similarity_score", "relatedness_score", "rating", "stars", "target"],
  marks: ["labels", "label"],
  words: ["tokens", "words"],
  tags: ["tags", "ner_tags", "labels", "pos_tags", "chunk_tags", "label"],
};

/** Whether a value that was read is an object (or a list). */
export const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null;

export function pick(
  row: Row,
  names: readonly string[],
  taken?: string,
): { name: string; value: unknown } | undefined {
  const name = names.find((candidate) => candidate !== taken && row.fields[candidate] !== undefined);
  if (name === undefined) return undefined;
  return { name, value: row.fields[name] };
}

export function textIn(row: Row, names: readonly string[], taken?: string): { name: string; value: string } {
  const found = pick(row, names, taken);
  if (!found)
    throw new UserError(
      `${row.where}: there is no ${names[0]} (columns: ${Object.keys(row.fields).join(", ")})`,
    );
  if (typeof found.value !== "string") throw new UserError(`${row.where}: "${found.name}" is not a text`);
  return { name: found.name, value: found.value };
}

/** A list of texts or numbers, by the first of its names that the row has. */
export function listUnder(row: Row, names: readonly string[]): unknown[] | undefined {
  const found = pick(row, names);
  if (!found || found.value === null) return undefined;
  if (Array.isArray(found.value)) return found.value;
  throw new UserError(`${row.where}: "${found.name}" is not a list`);
}

/**
 * A class's number of `count`, by its name or its number (with zeros in front or without); undefined
 * where it is none.
 */
export function classOf(value: unknown, labels: readonly string[] | null, count: number): number | undefined {
  if (typeof value === "string") {
    const named = labels?.indexOf(value) ?? -1;
    if (named >= 0) return named;
    if (!/^\d+$/.test(value)) return undefined;
  } else if (typeof value !== "number") return undefined;
  const number = Number(value);
  if (Number.isInteger(number) && number >= 0 && number < count) return number;
  return undefined;
}

/** What a role of a mapping stands for among the names that are read. */
const roleNames = { text: "text_a", text_b: "text_b" } as const satisfies Record<string, string>;
const isRenamed = (role: string): role is keyof typeof roleNames => Object.hasOwn(roleNames, role);

/** The column of the file that is read under a name. */
export function columnNamed(name: string, columns: Task["columns"]): string {
  const [, column] =
    Object.entries(columns ?? {}).find(([role]) => isRenamed(role) && roleNames[role] === name) ?? [];
  return column ?? name;
}

/** A row with its columns under the names that the task gives them. @throws UserError where it lacks one */
export function mapped(row: Row, { columns }: Pick<Task, "columns">): Row {
  if (!columns) return row;
  const more = Object.entries(columns).map(([role, column]): [string, unknown] => {
    if (!Object.hasOwn(row.fields, column))
      throw new UserError(
        `${row.where}: there is no column "${column}" for ${role} (columns: ${Object.keys(row.fields).join(", ")})`,
      );
    return [isRenamed(role) ? roleNames[role] : role, row.fields[column]];
  });
  const taken = new Set(Object.values(columns));
  const rest = Object.entries(row.fields).filter(([name]) => !taken.has(name));
  return { ...row, fields: { ...Object.fromEntries(rest), ...Object.fromEntries(more) } };
}
