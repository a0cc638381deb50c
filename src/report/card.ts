import { licenceNote, metadataText, type Lineage } from "./metadata.js";
import type { ResultRow } from "./rows.js";
import { safeLine } from "../errors.js";
import { escapeMarkdown, resultTable, toMarkdown } from "./table.js";
import { furtherMetrics, tableCaption, textIf } from "./caption.js";

export interface InputHash {
  readonly role: string;
  readonly file: string;
  readonly sha256: string;
}

export interface CardInput {
  readonly name: string;
  readonly tasks: readonly string[];
  /** The transformers class that the first task's expert was saved as. */
  readonly headClass: string;
  /** That of each task's, in their order, where tasks have heads; else all are the first's. */
  readonly headClasses?: readonly string[];
  readonly synthetic: boolean;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly rows: readonly ResultRow[];
  readonly inputs: readonly InputHash[];
  readonly version: string;
  readonly valPerTask: number;
  /** Whether a table of coefficients made it, and whether a tree did. */
  readonly coefficients: boolean;
  readonly tree: boolean;
  /**
   * What a reader does with the folder: `heads` puts a task's head on it, `scores` asks it as a
   * language model, `embeddings` multiplies a head with its features, `vectors` makes vectors of texts with it.
   */
  readonly use: "heads" | "scores" | "embeddings" | "vectors";
  /** The folder is a PEFT adapter. */
  readonly adapter: boolean;
  /** What is not merged, was let through or stands out; a line each. */
  readonly notes: readonly string[];
  /** The merge's own method in `rows`. */
  readonly method: string;
  /** What the models say of themselves. */
  readonly lineage: Lineage;
}

const pythonBlock = (lines: readonly string[]): string => `\`\`\`python\n${lines.join("\n")}\n\`\`\``;

/** What the hub calls what a class of transformers is for, by how its name ends. */
const pipelines: readonly (readonly [end: string, name: string])[] = [
  ["ForSequenceClassification", "text-classification"],
  ["ForTokenClassification", "token-classification"],
  ["ForQuestionAnswering", "question-answering"],
  ["ForMultipleChoice", "multiple-choice"],
  ["ForImageClassification", "image-classification"],
  ["ForCausalLM", "text-generation"],
  ["ForConditionalGeneration", "text2text-generation"],
];
const pipelineOf = (architecture: string): string | undefined =>
  pipelines.find(([end]) => architecture.endsWith(end))?.[1];

/** Those that transformers has a pipeline for. */
const hasPipeline = (name: string | undefined): name is string =>
  name !== undefined &&
  ["text-classification", "token-classification", "image-classification"].includes(name);

const baseNote = "  # BASE: the model that the experts were tuned from";

/** Lines that make a folder a model: itself, or an adapter on its base. */
function loaded({ headClass, adapter }: CardInput): string[] {
  if (!adapter)
    return [`from transformers import ${headClass}`, "", `model = ${headClass}.from_pretrained(".")`];
  return [
    "from peft import PeftModel",
    `from transformers import ${headClass}`,
    "",
    `model = PeftModel.from_pretrained(${headClass}.from_pretrained(BASE), ".")${baseNote}`,
  ];
}

/** Lines that open the first task's own model. */
function loadedTask({ headClass, adapter, tasks }: CardInput): string[] {
  const [one = "", ...others] = tasks;
  const first = `task = "${one}"${textIf(others.length > 0, `  # or ${others.join(", ")}`)}`;
  if (adapter)
    return [
      "from peft import PeftModel",
      `from transformers import AutoConfig, ${headClass}  # of each task: "architectures" in its config.json`,
      "",
      first,
      'config = AutoConfig.from_pretrained(f"tasks/{task}")',
      `model = ${headClass}.from_pretrained(BASE, config=config)${baseNote}`,
      'model = PeftModel.from_pretrained(model, f"tasks/{task}")',
    ];
  const pipeline = pipelineOf(headClass);
  if (hasPipeline(pipeline))
    return [
      "from transformers import pipeline",
      "",
      first,
      `pipe = pipeline("${pipeline}", model=f"tasks/{task}")`,
    ];
  return [
    `from transformers import AutoTokenizer, ${headClass}`,
    "",
    first,
    `model = ${headClass}.from_pretrained(f"tasks/{task}")`,
    'tokenizer = AutoTokenizer.from_pretrained(f"tasks/{task}")',
  ];
}

/** Lines that open a task's model, for every class that tasks have. */
function loadedTasks(input: CardInput): string[] {
  const { tasks, headClass, headClasses = [] } = input;
  const classOf = (i: number) => headClasses[i] ?? headClass;
  const classes = [...new Set(tasks.map((_, i) => classOf(i)))];
  return classes.flatMap((name, n) => {
    const own = tasks.filter((_, i) => classOf(i) === name);
    const lines = loadedTask({ ...input, headClass: name, tasks: own });
    return n === 0 ? lines : ["", ...lines];
  });
}

/** How to use the folder in Python, by what it is used for. */
const usages: Record<CardInput["use"], (input: CardInput) => string> = {
  scores: (input) =>
    `The folder is ${input.adapter ? "an adapter of the" : "the whole"} language model; tasks are put to it as ` +
    `prompts.\n${pythonBlock(loaded(input))}`,
  embeddings: (input) =>
    `The folder is ${input.adapter ? "an adapter of the vision tower" : "the model"}; each task's head in ` +
    "`heads/<task>` is multiplied with its image embeddings of length 1.\n" +
    pythonBlock([
      "from safetensors.torch import load_file",
      ...loaded(input),
      `head = load_file("heads/${input.tasks[0]}/head.safetensors")["classification_head.weight"]`,
    ]),
  vectors: (input) => {
    const folder = input.adapter ? "an adapter of the embedding model" : "the embedding model";
    const opened = ["from sentence_transformers import SentenceTransformer", ""];
    return (
      `The folder is ${folder}.\n` +
      pythonBlock(
        input.adapter
          ? [...opened, `model = SentenceTransformer(BASE)${baseNote}`, 'model.load_adapter(".")']
          : [...opened, 'model = SentenceTransformer(".")', 'vectors = model.encode(["a text", "another"])'],
      )
    );
  },
  heads: (input) =>
    `\`tasks/<task>\` is the whole model of each task${input.adapter ? " as an adapter" : ""}, with its labels ` +
    `(${input.tasks.join(", ")}); from the hub, with \`subfolder="tasks/${input.tasks[0]}"\`.\n` +
    pythonBlock(loadedTasks(input)),
};

/** Classes that a use asks for, whatever the experts were saved as. */
const classFor: Partial<Record<CardInput["use"], string>> = { embeddings: "CLIPVisionModelWithProjection" };

/** What the card says of the folder's use. */
const usageText = (input: CardInput): string =>
  usages[input.use]({ ...input, headClass: classFor[input.use] ?? input.headClass });

const cardHeader = (input: CardInput): string => {
  const { name, adapter, method, lineage, headClass, rows } = input;
  const own = rows.filter((row) => row.method === method);
  const isVectors = input.use === "vectors";
  const pipeline = isVectors ? "sentence-similarity" : pipelineOf(headClass);
  const library = isVectors && !adapter ? "sentence-transformers" : undefined;
  const metadata = { name, adapter, method, lineage, pipeline, library, rows: own };
  return `${metadataText(metadata)}# ${name}\n`;
};

const summarySection = ({ tasks, version, coefficients, tree, synthetic }: CardInput): string => {
  const weighted = textIf(coefficients, ", each layer's weighted by a coefficient (coefficients.csv)");
  const hierarchical = textIf(
    tree,
    " Groups of similar experts were merged first, then the merges (hierarchical).",
  );
  const syntheticNote = textIf(
    synthetic,
    "\n**The tasks are synthetic: their examples were written by a program. " +
      "The numbers say nothing about real data.**\n",
  );
  return `
One model for ${tasks.join(", ")}, merged with train-merge ${version}: the base
plus every expert's task vector${weighted}.${hierarchical}
${syntheticNote}
`;
};

function resultsSection({ rows, synthetic, valPerTask, method }: CardInput): string {
  const further = furtherMetrics(rows.filter((row) => row.method === method));
  return `## Results
${tableCaption(rows, synthetic, valPerTask)}

${toMarkdown(resultTable(rows))}
${textIf(further.length > 0, `\n${further.map((line) => `- ${escapeMarkdown(line)}\n`).join("")}`)}
\`individual\` is each model that was merged, on its own tasks. Task arithmetic's λ was searched, and
the coefficients of SuperMerge were trained, on the same validation examples. The last row was measured on the weights
as written in this folder.

`;
}

const useSection = (input: CardInput): string => `## Use
${usageText(input)}
Or \`train-merge evaluate FOLDER${textIf(input.adapter, " --base BASE")}\`.

`;

/** A value as code in a table. */
const codeCell = (value: unknown): string =>
  `\`${safeLine(JSON.stringify(value), 2000).replaceAll("`", "'").replaceAll("|", "\\|")}\``;

/** Settings that play a part only where another says so. */
const dependent: Readonly<Record<string, (settings: CardInput["settings"]) => boolean>> = {
  trim: ({ treat }) => treat === "ties",
  dareP: ({ treat }) => treat === "dare",
  density: ({ pack }) => pack === "sparse",
  variant: ({ method }) => method !== "supermerge",
  weightDecay: ({ weightDecay }) => weightDecay !== 0,
  warmup: ({ warmup }) => warmup !== 0,
  decay: ({ decay }) => decay !== "none",
  treat: ({ treat }) => treat !== "none",
  pull: ({ pull }) => pull !== 0,
  shrink: ({ shrink }) => shrink !== 0,
  average: ({ average }) => average !== 0,
  pack: ({ pack }) => pack !== "f32",
  dtype: ({ dtype }) => dtype !== "auto",
  write: ({ write }) => write !== "auto",
  score: ({ score }) => score !== "sum",
  shardSize: () => false,
  hub: () => false,
};
const playedPart = (key: string, settings: CardInput["settings"]): boolean =>
  dependent[key]?.(settings) ?? true;

function makingSection({ settings, inputs }: CardInput): string {
  const settingLines = Object.entries(settings)
    .filter(([key, value]) => value !== undefined && playedPart(key, settings))
    .map(([key, value]) => `| ${key} | ${codeCell(value)} |`);
  const inputLines = inputs.map(
    ({ role, file, sha256 }) => `| ${escapeMarkdown(role)} | ${escapeMarkdown(file)} | \`${sha256}\` |`,
  );
  return `## How it was made
| setting | value |
| --- | --- |
${settingLines.join("\n")}

| input | file | SHA-256 |
| --- | --- | --- |
${inputLines.join("\n")}

`;
}

const coefficientsNote =
  "The coefficients are in `coefficients.csv` and `coefficients.json`, drawn in `coefficients.svg`:\n\n" +
  "![coefficients by layer and task](coefficients.png)\n";

const treeSection = `
## The tree
Each node with its tasks' test accuracy before (its children's) and after, and what it took:

![the tree of merges](tree.png)

By which the experts were grouped:

![cosine similarity of the task vectors](similarity.png)
`;

/** What a reader must know of the inputs. */
export const notesSection = (notes: readonly string[]): string =>
  notes.length ? `\n## Notes\n${notes.map((line) => `- ${escapeMarkdown(line)}\n`).join("")}` : "";

/** The model card of a merged model (README.md with the hub's metadata header). */
export const modelCard = (input: CardInput): string =>
  cardHeader(input) +
  summarySection(input) +
  resultsSection(input) +
  useSection(input) +
  makingSection(input) +
  notesSection([...input.notes, licenceNote(input.lineage)].filter((line) => line !== undefined)) +
  textIf(input.coefficients, coefficientsNote) +
  textIf(input.tree, treeSection);
