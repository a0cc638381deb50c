/** What a task is that no registry names: from its expert's config and the rows of its files. */
import { UserError } from "../errors.js";
import { isRecord } from "../checkpoint/files.js";
import { isConversation } from "./chat.js";
import { aliases, columnNamed, mapped } from "./columns.js";
import type { TaskKind } from "./metrics.js";
import { findSplits, rowsIn } from "./files.js";
import { makeTask, type PartialEntry, type Task } from "./registry.js";

/** A task that was found out about, and what by, for people. */
export interface InferredTask {
  readonly task: Task;
  readonly told: string;
}

type ExpertConfig = Readonly<Record<string, unknown>>;

/** Rows that are looked at to tell the columns. */
const rowsLookedAt = 100;

/** A kind that an expert's config tells, whatever the columns are; undefined where the columns tell it. */
function kindOfConfig(
  id: string,
  config: ExpertConfig,
): "regression" | "multi-label" | "tokens" | "span" | undefined {
  const architectures = [config["architectures"]].flat().map(String);
  const isFor = (purpose: string) => architectures.some((name) => name.endsWith(`For${purpose}`));
  if (isFor("MaskedLM"))
    throw new UserError(
      `${id}: its expert fills in masked words, which is neither trained on nor measured; ` +
        "`train-merge merge` merges it without data",
    );
  if (isFor("TokenClassification")) return "tokens";
  if (isFor("QuestionAnswering")) return "span";
  if (config["problem_type"] === "multi_label_classification") return "multi-label";
  // A choice scores every ending with its one output.
  const isOneNumber = labelCount(config) === 1 && !isFor("MultipleChoice");
  if (config["problem_type"] === "regression" || isOneNumber) return "regression";
  return undefined;
}

/** Names of an expert's outputs in order; undefined where its config has none, or LABEL_0 … */
function labelNames(config: ExpertConfig): string[] | undefined {
  const named = config["id2label"];
  if (!isRecord(named)) return undefined;
  const names = Array.from({ length: Object.keys(named).length }, (_, i) => named[String(i)]);
  if (!names.every((name) => typeof name === "string")) return undefined;
  if (names.every((name) => /^label_\d+$/i.test(name))) return undefined;
  return names;
}

/** How many outputs an expert has that has no names for them. */
function labelCount(config: ExpertConfig): number | undefined {
  const named = config["id2label"];
  if (isRecord(named)) return Object.keys(named).length;
  return [config["num_labels"]].find((count) => typeof count === "number");
}

/** Whether an expert is a language model, which is asked for a text where others mark a part of one. */
const isLanguageModel = (config: ExpertConfig | undefined): boolean =>
  [config?.["architectures"]]
    .flat()
    .some((name) => /(CausalLM|ConditionalGeneration|LMHeadModel)$/.test(String(name)));

/** What the rows of a task's files hold. */
interface SeenRows {
  readonly columns: ReadonlySet<string>;
  /** Values of the label's column, as text. */
  readonly labels: ReadonlySet<string>;
  /** Values in lists of labels or tags. */
  readonly listed: ReadonlySet<string>;
  /** How many labels there are, where every list of labels is a 0 or 1 for each. */
  readonly vector: number | undefined;
  /** Whether answers have their places in a text. */
  readonly hasPlaces: boolean;
  /** Whether rows are lists of messages. */
  readonly areChats: boolean;
}

const isScalar = (value: unknown): value is string | number | boolean =>
  typeof value === "string" || typeof value === "number" || typeof value === "boolean";

/** Whether answers say where in the text they stand. */
function havePlaces(answers: unknown): boolean {
  const [first]: unknown[] = Array.isArray(answers) ? answers : [answers];
  return isRecord(first) && "answer_start" in first;
}

/** Looks at rows: at all of them where the labels' names must come from there. */
async function lookAt({ id, data, columns: mapping }: InferInputs, all: boolean): Promise<SeenRows> {
  const splits = await findSplits(data, { id });
  const [columns, labels, listed] = [new Set<string>(), new Set<string>(), new Set<string>()];
  let hasPlaces = false;
  let areChats = false;
  const lengths = new Set<number | undefined>();
  for (const { files } of Object.values(splits))
    for (const path of files) {
      let count = 0;
      for await (const row of rowsIn(path, { id })) {
        const { fields } = mapped(row, { columns: mapping });
        Object.keys(fields).forEach((name) => columns.add(name));
        const label = aliases.label.map((name) => fields[name]).find((value) => value !== undefined);
        if (isScalar(label) && label !== "" && label !== -1) labels.add(String(label));
        const list = [...aliases.tags, ...aliases.marks].map((name) => fields[name]).find(Array.isArray);
        if (list) lengths.add(list.every((one) => one === 0 || one === 1) ? list.length : undefined);
        for (const one of list ?? []) if (isScalar(one) && one !== -100) listed.add(String(one));
        areChats ||= isConversation({ fields });
        hasPlaces ||= havePlaces(fields["answers"]);
        if (!all && ++count >= rowsLookedAt) break;
      }
    }
  const [vector] = lengths.size === 1 ? lengths : [];
  return { columns, labels, listed, vector, hasPlaces, areChats };
}

const isDigits = (text: string): boolean => /^\d+$/.test(text);

/**
 * The labels of a task or how many there are, and what they were found by.
 * @param found values that the rows have
 * @throws UserError where their order cannot be known
 */
function classesOf(
  {
    id,
    config,
    said,
  }: {
    readonly id: string;
    readonly config: ExpertConfig | undefined;
    readonly said: PartialEntry["labels"];
  },
  found: ReadonlySet<string>,
): { readonly labels: string[] | number; readonly by: string } {
  if (said) return { labels: said, by: "tasks.json" };
  const names = config && labelNames(config);
  if (names) return { labels: names, by: "its expert's id2label" };
  const words = [...found].filter((label) => !isDigits(label) && label !== "true" && label !== "false");
  const count = config && labelCount(config);
  if (words.length && config && !isLanguageModel(config))
    throw new UserError(
      `${id}: its labels are words (${words.slice(0, 3).join(", ")}), and its expert does not say in what order its ` +
        `outputs are: write id2label into a config.json in its folder, or ` +
        `{"${id}": {"labels": [NAMES IN ORDER]}} into tasks.json in the data folder`,
    );
  if (words.length) return { labels: words.toSorted(), by: "the data, in the order of the alphabet" };
  const most = count ?? Math.max(1, ...[...found].filter(isDigits).map(Number)) + 1;
  let by = "the data";
  if (count !== undefined) by = "its expert's outputs";
  return { labels: most, by };
}

/** Whether a model's config is one of images. */
const takesImages = (config: ExpertConfig): boolean =>
  "image_size" in config || isRecord(config["vision_config"]) || "num_channels" in config;

/** Names of labels, the first of them. */
function labelsShown({ labels }: Task, by: string): string {
  const names = labels ?? [];
  return `${names.length} labels (${names.slice(0, 4).join(", ")}${" …".repeat(Number(names.length > 4))}), by ${by}`;
}

/** Whether labels are numbers with something behind the point. */
const areFractions = (labels: ReadonlySet<string>): boolean =>
  [...labels].every((label) => label.trim() !== "" && Number.isFinite(Number(label))) &&
  [...labels].some((label) => !Number.isInteger(Number(label)));

/** What rows are of, where an expert does not say: by their columns. */
function kindOfRows({ columns, labels, listed, hasPlaces, areChats }: SeenRows): TaskKind | undefined {
  if (areChats) return "chat";
  const has = (...some: string[]): boolean => some.every((name) => columns.has(name));
  if (has("choices") || has("choice1", "choice2")) return "choice";
  if (has("positive") && (has("anchor") || has("query"))) return "retrieval";
  if (aliases.words.some((name) => columns.has(name)) && listed.size > 0) return "tokens";
  if (listed.size > 0) return "multi-label";
  const hasLabel = aliases.label.some((name) => name !== "answer" && columns.has(name));
  if (has("answers") && !hasLabel) return hasPlaces && has("context") ? "span" : "generate";
  if (areFractions(labels)) return "regression";
  return undefined;
}

/** Columns of a text, or of two. @throws UserError where none is known */
function textColumns({ id, data }: InferInputs, { columns }: SeenRows): [string] | [string, string] {
  const second = [...aliases.second, "passage"].find((name) => columns.has(name));
  const first = aliases.first.find((name) => name !== second && columns.has(name));
  if (first === undefined)
    throw new UserError(
      `${data}/${id}: none of its columns (${[...columns].join(", ")}) is one of ${aliases.first.join(", ")}; ` +
        `name the column of the text: --columns ${id}.text=COLUMN`,
    );
  return second === undefined ? [first] : [first, second];
}

/** By how many texts an example has. */
const textKinds = { 1: "single", 2: "pair" } as const;

/** Whether rows have a number that is no class, by what its column is called. */
const hasScore = ({ columns }: SeenRows): boolean =>
  ["score", "similarity_score", "relatedness_score"].some((name) => columns.has(name));

/** What a kind was found by. */
function toldBy(isTold: boolean, otherwise: string): string {
  if (isTold) return "its expert's config";
  return otherwise;
}

/** Kinds that need neither labels nor the names of columns. */
const plainKinds = ["choice", "chat", "retrieval", "similarity", "generate"] as const;
const toldOf: Readonly<Record<(typeof plainKinds)[number], (by: string) => string>> = {
  choice: (by) => `a choice, by ${by}`,
  chat: () => "conversations, by their columns",
  retrieval: () => "texts and their partners, by their columns",
  similarity: () => "how alike two texts are, by the data and its expert's modules.json",
  generate: () => "a text to be said, by its column answers",
};

/** What a task is found by. */
export interface InferInputs {
  readonly id: string;
  /** The data folder. */
  readonly data: string;
  /** Its expert's; undefined where there is none (fine-tuning). */
  readonly config: ExpertConfig | undefined;
  /** Columns by their roles, where the user named some. */
  readonly columns?: Task["columns"];
  /** What tasks.json says of it. */
  readonly said?: PartialEntry | undefined;
}

/**
 * Finds out what a task is.
 * @throws UserError where it is of a kind that is not known, or cannot be told
 */
export async function inferTask(inputs: InferInputs): Promise<InferredTask> {
  const { id, config, said: { labels: said, ...own } = {} } = inputs;
  const columns = { ...own.columns, ...inputs.columns };
  own.columns = columns;
  const named = config && kindOfConfig(id, config);
  const listed = Array.isArray(said) ? said : undefined;
  const classes = listed ?? (config && labelNames(config));
  if (config && takesImages(config) && named === undefined) {
    if (!classes)
      throw new UserError(
        `${id}: name its classes in the expert's id2label, or in the data folder's tasks.json`,
      );
    const told = `${id}: pictures of ${classes.length} classes, by ${listed ? "tasks.json" : "its expert's id2label"}`;
    return { task: makeTask(id, { ...own, kind: "image", labels: classes }), told };
  }
  const seen = await lookAt({ ...inputs, columns }, classes === undefined);
  let kind = named ?? kindOfRows(seen);
  if (kind === "span" && isLanguageModel(config)) kind = "generate";
  if (config?.["modules"] === true && (kind === "regression" || hasScore(seen))) kind = "similarity";
  const by = toldBy(named !== undefined, "its columns");
  const plain = plainKinds.find((one) => one === kind);
  if (plain) return { task: makeTask(id, { ...own, kind: plain }), told: `${id}: ${toldOf[plain](by)}` };
  if (kind === "span") {
    const told = `${id}: a part of a text that answers a question, by ${by}`;
    return { task: makeTask(id, { ...own, kind }), told };
  }
  if (kind === "tokens") {
    const found = classesOf({ id, config, said }, seen.listed);
    const task = makeTask(id, { ...own, kind, labels: found.labels });
    return { task, told: `${id}: words with a class each, by ${by}; ${labelsShown(task, found.by)}` };
  }
  const texts = textColumns(inputs, seen);
  const shownTexts = texts.map((name) => `"${columnNamed(name, columns)}"`).join(" with ");
  const told = `${id}: text from ${shownTexts}`;
  if (kind === "regression") {
    const source = toldBy(named !== undefined, "the data");
    return { task: makeTask(id, { ...own, kind }), told: `${told}; a number, by ${source}` };
  }
  if (kind === "multi-label") {
    const isCounted = seen.vector !== undefined && seen.vector > 2;
    const numbers = isCounted ? new Set([String(seen.vector - 1)]) : seen.listed;
    const found = classesOf({ id, config, said }, numbers);
    const task = makeTask(id, { ...own, kind, labels: found.labels });
    return { task, told: `${told}; any of ${labelsShown(task, found.by)}` };
  }
  const found = classesOf({ id, config, said }, seen.labels);
  const task = makeTask(id, { ...own, kind: textKinds[texts.length], labels: found.labels });
  return { task, told: `${told}; ${labelsShown(task, found.by)}` };
}
