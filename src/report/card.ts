import type { ResultRow } from "./rows.js";
import { safeLine } from "../errors.js";
import { escapeMarkdown, resultTable, tableCaption, textIf, toMarkdown } from "./table.js";

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
   * language model, `embeddings` multiplies a head with its features.
   */
  readonly use: "heads" | "scores" | "embeddings";
  /** The folder is a PEFT adapter. */
  readonly adapter: boolean;
  /** What is not merged, was let through or stands out; a line each. */
  readonly notes: readonly string[];
}

type Usage = Pick<CardInput, "tasks" | "headClass" | "use" | "adapter">;

/** What the folder is, to whom it is used for what. */
const whatItIs = {
  scores: { model: "the whole language model", adapter: "an adapter of the language model" },
  embeddings: { model: "the model", adapter: "an adapter of the vision tower" },
  heads: { model: "the encoder", adapter: "an adapter of the encoder" },
};

const pythonBlock = (lines: readonly string[]): string => `\`\`\`python\n${lines.join("\n")}\n\`\`\``;

/** Lines of Python that make a folder a model. */
interface PythonLoader {
  readonly imports: readonly string[];
  /** @param more arguments beside the folder */
  load(more?: string): string;
  /** The model itself. */
  readonly model: string;
}

function loaderOf({ headClass, adapter }: Usage): PythonLoader {
  if (!adapter)
    return {
      imports: [],
      load: (more = "") => `model = ${headClass}.from_pretrained("."${more})`,
      model: "model",
    };
  return {
    imports: ["from peft import PeftModel"],
    load: (more = "") =>
      `model = PeftModel.from_pretrained(${headClass}.from_pretrained(BASE${more}), ".")  # ` +
      "BASE: the model that the experts were tuned from",
    model: "model.base_model.model",
  };
}

/** How to use the folder in Python, by what it is used for. */
const usages: Record<CardInput["use"], (usage: Usage, what: string, loader: PythonLoader) => string> = {
  scores: ({ headClass }, what, { imports, load }) =>
    `The folder is ${what}; tasks are put to it as prompts.\n` +
    pythonBlock([...imports, `from transformers import ${headClass}`, "", load()]),
  embeddings: ({ headClass, tasks }, what, { imports, load }) =>
    `The folder is ${what}; each task's ` +
    "head in `heads/<task>` is multiplied with its image embeddings of length 1.\n" +
    pythonBlock([
      "from safetensors.torch import load_file",
      ...imports,
      `from transformers import ${headClass}`,
      "",
      load(),
      `head = load_file("heads/${tasks[0]}/head.safetensors")["classification_head.weight"]`,
    ]),
  heads: ({ headClass, tasks }, what, { imports, load, model }) =>
    `The folder is ${what}; each task keeps its own head in \`heads/<task>\`.\n` +
    pythonBlock([
      "from safetensors.torch import load_file",
      ...imports,
      `from transformers import AutoConfig, ${headClass}  # of each task: "architectures" in ` +
        "heads/<task>/config.json",
      "",
      `task = "${tasks[0]}"`,
      'config = AutoConfig.from_pretrained(f"heads/{task}")',
      load(", config=config"),
      `${model}.load_state_dict(load_file(f"heads/{task}/head.safetensors"), strict=False)`,
    ]),
};

/** Classes that a use asks for, whatever the experts were saved as. */
const classFor: Partial<Record<CardInput["use"], string>> = { embeddings: "CLIPVisionModelWithProjection" };

/** What the card says of the folder's use. */
function usageText(given: Usage): string {
  const usage = { ...given, headClass: classFor[given.use] ?? given.headClass };
  const { model, adapter } = whatItIs[usage.use];
  return usages[usage.use](usage, usage.adapter ? adapter : model, loaderOf(usage));
}

const cardHeader = ({ adapter, name }: CardInput): string => `---
library_name: ${adapter ? "peft" : "transformers"}
tags: [merge, train-merge, supermerge]
---
# ${name}
`;

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

const resultsSection = ({ rows, synthetic, valPerTask }: CardInput): string => `## Results
${tableCaption(rows, synthetic, valPerTask)}

${toMarkdown(resultTable(rows))}

\`individual\` is each model that was merged, on its own tasks. Task arithmetic's λ was searched, and
the coefficients of SuperMerge were trained, on the same validation examples. The last row was measured on the weights
as written in this folder.

`;

const useSection = (input: CardInput): string => `## Use
${usageText(input)}
Or \`train-merge evaluate FOLDER${textIf(input.adapter, " --base BASE")}\`.

`;

/** A value as code in a table. */
const codeCell = (value: unknown): string =>
  `\`${safeLine(JSON.stringify(value), 2000).replaceAll("`", "'").replaceAll("|", "\\|")}\``;

function makingSection({ settings, inputs }: CardInput): string {
  const settingLines = Object.entries(settings)
    .filter(([, value]) => value !== undefined)
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
  notesSection(input.notes) +
  textIf(input.coefficients, coefficientsNote) +
  textIf(input.tree, treeSection);
