import type { ResultRow } from "./rows.js";
import { toMarkdown } from "./formats.js";
import { resultTable, tableCaption } from "./table.js";

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
}

/** The lines that load the folder in Python. */
function useOf({
  tasks,
  headClass,
  use,
  adapter,
}: Pick<CardInput, "tasks" | "headClass" | "use" | "adapter">): string {
  const code = (lines: readonly string[]) => `\`\`\`python\n${lines.join("\n")}\n\`\`\``;
  const load = (from: string, more = "") =>
    adapter
      ? [
          `model = PeftModel.from_pretrained(${headClass}.from_pretrained(BASE${more}), ".")  # ` +
            "BASE: the model that the experts were tuned from",
        ]
      : [`model = ${headClass}.from_pretrained(${from}${more})`];
  const peft = adapter ? ["from peft import PeftModel"] : [];
  if (use === "scores")
    return (
      `The folder is ${adapter ? "an adapter of the language model" : "the whole language model"}; ` +
      "tasks are put to it as " +
      `prompts.\n${code([...peft, `from transformers import ${headClass}`, "", ...load('"."')])}`
    );
  if (use === "embeddings") {
    const lines = [
      "from safetensors.torch import load_file",
      ...peft,
      `from transformers import ${headClass}`,
      "",
      ...load('"."'),
      `head = load_file("heads/${tasks[0]}/head.safetensors")["classification_head.weight"]`,
    ];
    return (
      `The folder is ${adapter ? "an adapter of the vision tower" : "the model"}; each task's ` +
      "head in `heads/<task>` is multiplied with its image embeddings of length 1.\n" +
      code(lines)
    );
  }
  const what = adapter ? "an adapter of the encoder" : "the encoder";
  return `The folder is ${what}; each task keeps its own head in \`heads/<task>\`.\n${code([
    "from safetensors.torch import load_file",
    ...peft,
    `from transformers import AutoConfig, ${headClass}  # of each task: "architectures" in ` +
      "heads/<task>/config.json",
    "",
    `task = "${tasks[0]}"`,
    'config = AutoConfig.from_pretrained(f"heads/{task}")',
    ...load('"."', ", config=config"),
    `${adapter ? "model.base_model.model" : "model"}.load_state_dict(load_file(f"heads/{task}/head.safetensors"), ` +
      "strict=False)",
  ])}`;
}

/** The model card of a merged model (README.md with the hub's metadata header). */
export function modelCard({
  name,
  tasks,
  headClass,
  synthetic,
  settings,
  rows,
  inputs,
  version,
  valPerTask,
  coefficients,
  tree,
  use,
  adapter,
}: CardInput): string {
  const weighted = ", each layer's weighted by a coefficient (coefficients.csv)";
  const hierarchical = " Groups of similar experts were merged first, then the merges (hierarchical).";
  const syntheticNote =
    "\n**The tasks are synthetic: their examples were written by a program. " +
    "The numbers say nothing about real data.**\n";
  const settingLines = Object.entries(settings)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `| ${key} | \`${JSON.stringify(value)}\` |`);
  const inputLines = inputs.map(({ role, file, sha256 }) => `| ${role} | ${file} | \`${sha256}\` |`);
  return `---
library_name: ${adapter ? "peft" : "transformers"}
tags: [merge, train-merge, supermerge]
---
# ${name}

One model for ${tasks.join(", ")}, merged with train-merge ${version}: the base
plus every expert's task vector${coefficients ? weighted : ""}.${tree ? hierarchical : ""}
${synthetic ? syntheticNote : ""}
## Results
${tableCaption(rows, synthetic, valPerTask)}

${toMarkdown(resultTable(rows))}

\`individual\` is each model that was merged, on its own tasks. Task arithmetic's λ was searched, and
the coefficients of SuperMerge were trained, on the same validation examples. The last row was measured on the weights
as written in this folder.

## Use
${useOf({ tasks, headClass, use, adapter })}
Or \`train-merge evaluate FOLDER${adapter ? " --base BASE" : ""}\`.

## How it was made
| setting | value |
| --- | --- |
${settingLines.join("\n")}

| input | file | SHA-256 |
| --- | --- | --- |
${inputLines.join("\n")}

${
  coefficients
    ? `The coefficients are in \`coefficients.csv\` and \`coefficients.json\`, drawn in \`coefficients.svg\`:

![coefficients by layer and task](coefficients.png)
`
    : ""
}${
    tree
      ? `
## The tree
Each node with its tasks' test accuracy before (its children's) and after, and what it took:

![the tree of merges](tree.png)

By which the experts were grouped:

![cosine similarity of the task vectors](similarity.png)
`
      : ""
  }`;
}
