/** What a task is that no registry names: from its expert's config and the rows of its files. */
import { UserError } from "../errors.js";
import { isRecord } from "../checkpoint/files.js";
import { aliases } from "./examples.js";
import { findSplits, rowsIn } from "./files.js";
import { makeTask, type Task } from "./registry.js";

/** A task that was found out about, and what by, for people. */
export interface InferredTask {
  readonly task: Task;
  readonly told: string;
}

type ExpertConfig = Readonly<Record<string, unknown>>;

/** Rows that are looked at to tell the columns. */
const rowsLookedAt = 100;

/** What transformers' classes are for that no task kind is. */
const otherAnswers: readonly (readonly [sign: RegExp, what: string])[] = [
  [/ForTokenClassification$/, "classes of tokens"],
  [/ForQuestionAnswering$/, "spans of a text"],
  [/ForMaskedLM$/, "masked words"],
];

/** @throws UserError where an expert answers in a way that cannot be trained on or measured */
function refuseOtherAnswers(id: string, config: ExpertConfig): void {
  const architectures = [config["architectures"]].flat().map(String);
  const sign = otherAnswers.find(([pattern]) => architectures.some((name) => pattern.test(name)));
  const problem = config["problem_type"];
  // A choice scores every ending with its one output.
  const isOneNumber =
    labelCount(config) === 1 && !architectures.some((name) => name.endsWith("ForMultipleChoice"));
  let what = sign?.[1];
  if (problem === "regression" || isOneNumber) what = "a number";
  if (problem === "multi_label_classification") what = "several labels";
  if (what === undefined) return;
  throw new UserError(
    `${id}: its expert answers with ${what}, which is neither trained on nor measured; ` +
      "`train-merge merge` merges it without data",
  );
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

/** What the rows of a task's files hold. */
interface SeenRows {
  readonly columns: ReadonlySet<string>;
  /** Values of the label's column, as text. */
  readonly labels: ReadonlySet<string>;
}

/** Looks at rows: at all of them where the labels' names must come from there. */
async function lookAt(dataFolder: string, id: string, all: boolean): Promise<SeenRows> {
  const splits = await findSplits(dataFolder, { id });
  const [columns, labels] = [new Set<string>(), new Set<string>()];
  for (const { files } of Object.values(splits))
    for (const path of files) {
      let count = 0;
      for await (const { fields } of rowsIn(path, { id })) {
        Object.keys(fields).forEach((name) => columns.add(name));
        const label = aliases.label.map((name) => fields[name]).find((value) => value !== undefined);
        const isWord = typeof label === "string" || typeof label === "number" || typeof label === "boolean";
        if (isWord && label !== "" && label !== -1) labels.add(String(label));
        if (!all && ++count >= rowsLookedAt) break;
      }
    }
  return { columns, labels };
}

const isDigits = (text: string): boolean => /^\d+$/.test(text);

/**
 * The labels of a task or how many there are, and what they were found by.
 * @throws UserError where their order cannot be known
 */
function classesOf(
  id: string,
  config: ExpertConfig | undefined,
  { labels }: SeenRows,
): { readonly labels: string[] | number; readonly by: string } {
  const names = config && labelNames(config);
  if (names) return { labels: names, by: "its expert's id2label" };
  const words = [...labels].filter((label) => !isDigits(label) && label !== "true" && label !== "false");
  const count = config && labelCount(config);
  if (words.length && config)
    throw new UserError(
      `${id}: its labels are words (${words.slice(0, 3).join(", ")}), and its expert's config.json does not name its ` +
        "outputs: write id2label there, or labels in the data folder's tasks.json",
    );
  if (words.length) return { labels: words.toSorted(), by: "the data, in the order of the alphabet" };
  const most = count ?? Math.max(1, ...[...labels].filter(isDigits).map(Number)) + 1;
  let by = "the data";
  if (count !== undefined) by = "its expert's outputs";
  return { labels: most, by };
}

/** Whether a model's config is one of images. */
const takesImages = (config: ExpertConfig): boolean =>
  "image_size" in config || isRecord(config["vision_config"]) || "num_channels" in config;

/**
 * Finds out what a task is.
 * @param config its expert's; undefined where there is none (fine-tuning)
 * @throws UserError where it is of a kind that is not known, or cannot be told
 */
export async function inferTask(
  id: string,
  dataFolder: string,
  config: ExpertConfig | undefined,
): Promise<InferredTask> {
  if (config) refuseOtherAnswers(id, config);
  const classes = config && labelNames(config);
  if (config && takesImages(config)) {
    if (!classes)
      throw new UserError(
        `${id}: name its classes in the expert's id2label, or in the data folder's tasks.json`,
      );
    const told = `${id}: pictures of ${classes.length} classes, by its expert's id2label`;
    return { task: makeTask(id, { kind: "image", labels: classes }), told };
  }
  const seen = await lookAt(dataFolder, id, classes === undefined);
  const { columns } = seen;
  const has = (...some: string[]): boolean => some.every((name) => columns.has(name));
  if (has("choices") || has("choice1", "choice2"))
    return { task: makeTask(id, { kind: "choice", labels: null }), told: `${id}: a choice, by its columns` };
  if (has("answers") && !aliases.label.some((name) => name !== "answer" && columns.has(name)))
    return {
      task: makeTask(id, { kind: "generate", labels: null }),
      told: `${id}: a text to be said, by its column answers`,
    };
  const second = [...aliases.second, "passage"].find((name) => columns.has(name));
  const first = aliases.first.find((name) => name !== second && columns.has(name));
  if (first === undefined)
    throw new UserError(
      `${dataFolder}/${id}: none of its columns (${[...columns].join(", ")}) is one of ${aliases.first.join(", ")}; ` +
        "rename the column of the text",
    );
  const { labels, by } = classesOf(id, config, seen);
  let kind: "single" | "pair" = "single";
  if (second !== undefined) kind = "pair";
  const task = makeTask(id, { kind, labels });
  const names = task.labels ?? [];
  const texts = [first, second].filter((name) => name !== undefined).map((name) => `"${name}"`);
  const told =
    `${id}: ${texts.join(" with ")}, by its columns; ${names.length} labels ` +
    `(${names.slice(0, 4).join(", ")}${" …".repeat(Number(names.length > 4))}), by ${by}`;
  return { task, told };
}
