/** The metadata on top of a model card, as the hub reads it. */
import { stringify } from "yaml";
import { titleOfMetric } from "./caption.js";
import type { ResultRow } from "./rows.js";

/** What the models of a merge say of themselves. */
export interface Lineage {
  /** Ids on the hub, the base's first; of models that came from elsewhere, none. */
  readonly models: readonly string[];
  readonly licences: readonly { readonly label: string; readonly licence: string }[];
  readonly languages: readonly string[];
  readonly datasets: readonly string[];
}

export interface MetadataInput {
  readonly name: string;
  readonly adapter: boolean;
  /** The method's own tag. */
  readonly method: string;
  readonly lineage: Lineage;
  /** What a pipeline of transformers calls the first task. */
  readonly pipeline?: string | undefined;
  /** What opens it, where that is not transformers or PEFT. */
  readonly library?: string | undefined;
  /** Test rows of the merge itself. */
  readonly rows: readonly ResultRow[];
}

/** The one licence of all models that name one; "other" where they differ. */
export function licenceOf({ licences }: Lineage): string | undefined {
  const names = [...new Set(licences.map(({ licence }) => licence))];
  return names.length > 1 ? "other" : names[0];
}

/** Licences that differ, in a line for people; undefined where they do not. */
export function licenceNote(lineage: Lineage): string | undefined {
  if (licenceOf(lineage) !== "other") return undefined;
  const each = lineage.licences.map(({ label, licence }) => `${label}: ${licence}`).join(", ");
  return `The models' licences differ (${each}): see to it which of them bind the merge.`;
}

const fraction = (value: number): number => Number(value.toFixed(4));

/** What tasks are that have a metric of their own. */
const pipelineOfMetric: Readonly<Record<string, string>> = {
  "entity-f1": "token-classification",
  "span-f1": "question-answering",
};

/** Results as the hub's model-index lists them. */
function modelIndex({ name, rows, pipeline }: MetadataInput): unknown {
  const results = rows.map(({ task, metric, value, also = {} }) => ({
    task: { type: pipelineOfMetric[metric] ?? pipeline ?? "text-generation", name: task },
    dataset: { type: task, name: task, split: "test" },
    metrics: [[metric, value] as const, ...Object.entries(also)].map(([type, one]) => ({
      type,
      name: titleOfMetric(type),
      value: fraction(one),
    })),
  }));
  return [{ name, results }];
}

/** A list, or nothing where it is empty. */
const listed = (items: readonly string[]): readonly string[] | undefined =>
  items.length > 0 ? items : undefined;

/** The metadata as YAML between its lines of dashes. */
export function metadataText(input: MetadataInput): string {
  const { adapter, lineage, method, pipeline, library, rows } = input;
  const metadata = {
    library_name: library ?? (adapter ? "peft" : "transformers"),
    base_model: listed(lineage.models),
    base_model_relation: lineage.models.length > 0 ? "merge" : undefined,
    license: licenceOf(lineage),
    language: listed(lineage.languages),
    datasets: listed(lineage.datasets),
    pipeline_tag: pipeline,
    tags: ["merge", "train-merge", method],
    "model-index": rows.length > 0 ? modelIndex(input) : undefined,
  };
  return `---\n${stringify(metadata, { lineWidth: 0, aliasDuplicateObjects: false })}---\n`;
}
