import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { isRecord, readJson } from "../checkpoint/files.js";
import { firstIssue, UserError } from "../errors.js";
import { nearest } from "../nearest.js";
import { packageFolder } from "../package.js";
import { customaryMetrics, metricNames, metricsOfKind, type MetricName } from "./metrics.js";

/** A head with more outputs is none that anybody trains. */
const mostLabels = 100_000;
const labelRule = `they must be two or more names, or how many there are (2 to ${mostLabels})`;

/** What a task's columns may be called by: the parts of an example, for files that name them otherwise. */
export const columnRoles = [
  "text",
  "text_b",
  "label",
  "choices",
  "tokens",
  "tags",
  "question",
  "context",
  "answers",
  "messages",
] as const;

const entryShape = z.object({
  /**
   * `single`: one text. `pair`: two texts. `choice`: one text and several endings, one of them right.
   * `image`: a picture. `generate`: a text to be said. `regression`: a number for a text or two. `multi-label`:
   * every label that holds of a text or two. `tokens`: a class a word. `span`: a question, and the part of a text
   * that answers it. `chat`: conversations, in which everything that the assistant says is learned. `similarity`: how
   * alike two texts are, by their vectors' cosine. `retrieval`: a text and its partner, found among all partners.
   */
  kind: z.enum([
    "single",
    "pair",
    "choice",
    "image",
    "generate",
    "regression",
    "multi-label",
    "tokens",
    "span",
    "chat",
    "similarity",
    "retrieval",
  ]),
  /**
   * Label names in the order of the head's outputs, or how many there are; null for a choice, whose
   * label is the ending's number, for a number, a span, and what is to be said.
   */
  labels: z
    .union(
      [
        z.array(z.string()).min(2, labelRule),
        z
          .number()
          .int()
          .min(2, labelRule)
          .max(mostLabels, labelRule)
          .transform((n) => Array.from({ length: n }, (_, i) => String(i))),
      ],
      labelRule,
    )
    .nullable()
    .default(null),
  /** What it is measured by; the first chooses between models. Default: what is customary for the kind. */
  metrics: z.array(z.enum(metricNames)).min(1).optional(),
  /** Columns of its files, by the part of an example that each is. */
  columns: z.partialRecord(z.enum(columnRoles), z.string()).optional(),
  /** Of `generate` and `chat`: after how many tokens a model is stopped. Default: 32, and 128. */
  max_new_tokens: z.number().int().min(1).max(10_000).optional(),
  /** Of `generate`: so many examples of the training file stand solved before what is asked (few-shot); default 0. */
  shots: z.number().int().min(0).max(100).optional(),
  /** Of `generate`: what ends a text wherever it is said. */
  stop: z.array(z.string().min(1)).optional(),
  /** Of an image task: what a class is called in a caption, {} being its name, for heads made from text. */
  prompts: z.array(z.string().includes("{}")).min(1).optional(),
  /** The examples were written by a program; said wherever the task's numbers stand. */
  synthetic: z.boolean().default(false),
  what: z.string().default(""),
});

const registryEntry = entryShape.transform((read, context) => {
  const { kind, labels } = read;
  const metrics: readonly MetricName[] = read.metrics ?? customaryMetrics(kind, labels);
  const known: readonly MetricName[] = metricsOfKind[kind];
  const wrong = metrics.find((name) => !known.includes(name) || (name === "f1" && labels?.length !== 2));
  if (wrong !== undefined)
    context.addIssue({
      code: "custom",
      path: ["metrics"],
      message: `${wrong} is none of a task of kind ${kind}${wrong === "f1" ? " that has not two labels" : ""}`,
    });
  if (kind !== "generate" && (read.shots !== undefined || read.stop !== undefined))
    context.addIssue({
      code: "custom",
      path: [read.shots === undefined ? "stop" : "shots"],
      message: "only of a task of the kind generate",
    });
  const own = { ...read, metrics, max_new_tokens: read.max_new_tokens ?? (kind === "chat" ? 128 : 32) };
  // One by one, so that each is a kind of its own to the compiler.
  if (kind === "choice") return { ...own, kind, labels };
  if (kind === "generate") return { ...own, kind, labels };
  if (kind === "chat") return { ...own, kind, labels };
  if (kind === "regression") return { ...own, kind, labels };
  if (kind === "span") return { ...own, kind, labels };
  if (kind === "similarity") return { ...own, kind, labels };
  if (kind === "retrieval") return { ...own, kind, labels };
  if (labels !== null) return { ...own, kind, labels };
  context.addIssue({
    code: "custom",
    path: ["labels"],
    message: "only a choice, a number, a span, a chat, vectors and a text to be said have none",
  });
  return z.NEVER;
});

/** A task whose examples are of its classes. */
export type ClassTask = Extract<Task, { readonly labels: readonly string[] }>;

/** By its kind, a task has labels or may have none. */
export type Task = Readonly<z.infer<typeof registryEntry>> & { readonly id: string };

/** What a task may be called: it is also a folder's name. */
const taskName = /^\w[\w.-]*$/;

/** Whether a task that no registry names can be found out about: it has a folder of data. */
export const hasData = (data: string, id: string): boolean => taskName.test(id) && existsSync(join(data, id));

/** A task of one's own, checked as the registry's are. @throws UserError */
export function makeTask(id: string, entry: z.input<typeof registryEntry>): Task {
  const parsed = registryEntry.safeParse(entry);
  if (!parsed.success) throw new UserError(`${id}: ${firstIssue(parsed.error)}`);
  return { ...parsed.data, id };
}

/** An entry without a kind: what it says wins over what is found out. */
const partialEntry = entryShape.omit({ kind: true }).partial();
export type PartialEntry = Partial<Omit<z.input<typeof entryShape>, "kind">>;

const isPartial = (entry: unknown): boolean => isRecord(entry) && entry["kind"] === undefined;

/** @throws UserError where an entry is not what the schema says */
async function entriesIn<S extends z.ZodType>(
  path: string,
  schema: S,
  isWanted: (entry: unknown) => boolean,
): Promise<Record<string, z.output<S>>> {
  const file = await readJson(path);
  const wanted = isRecord(file)
    ? Object.fromEntries(Object.entries(file).filter(([, one]) => isWanted(one)))
    : file;
  const parsed = z
    .record(
      z.string().regex(taskName, "a task's name may hold letters, digits, dots, dashes and underscores"),
      schema,
    )
    .safeParse(wanted);
  if (!parsed.success) throw new UserError(`${path}: ${firstIssue(parsed.error)}`);
  return parsed.data;
}

async function readRegistry(path: string): Promise<Map<string, Task>> {
  const entries = await entriesIn(path, registryEntry, (entry) => !isPartial(entry));
  return new Map(Object.entries(entries).map(([id, task]) => [id, { ...task, id }]));
}

/** What a data folder's `tasks.json` says of a task whose kind it leaves to be found out; {} where it says nothing. */
export async function partialEntryOf(dataFolder: string, id: string): Promise<PartialEntry> {
  const path = join(dataFolder, "tasks.json");
  if (!existsSync(path)) return {};
  // Without what the schema fills in: that would win too.
  const entries = await entriesIn(path, z.unknown(), isPartial);
  const checked = await entriesIn(path, partialEntry, isPartial);
  const [said, full] = [entries[id], checked[id]];
  if (!isRecord(said) || full === undefined) return {};
  return Object.fromEntries(Object.entries(full).filter(([key]) => key in said));
}

/**
 * The tasks train-merge knows (`data/tasks.json`), with those that the data folder's own `tasks.json`
 * adds or changes.
 */
export async function loadTasks(dataFolder?: string): Promise<Map<string, Task>> {
  const tasks = await readRegistry(join(packageFolder, "data", "tasks.json"));
  if (dataFolder === undefined) return tasks;
  const own = join(dataFolder, "tasks.json");
  if (existsSync(own)) for (const [id, task] of await readRegistry(own)) tasks.set(id, task);
  return tasks;
}

/** Picks tasks by name. @throws UserError naming the nearest known task. */
export function pickTasks(registry: ReadonlyMap<string, Task>, ids: readonly string[]): Task[] {
  return ids.map((id) => {
    const task = registry.get(id);
    if (!task)
      throw new UserError(
        `unknown task "${id}"${nearest(id, registry.keys())}; \`train-merge tasks\` lists them, and one of your own ` +
          `needs a folder ${id} in --data`,
      );
    return task;
  });
}
