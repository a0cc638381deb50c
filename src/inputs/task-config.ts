/** The config of a model that answers a task, as transformers writes it. */
import type { Task } from "../tasks/registry.js";
import { checkpointTypeOf } from "../models/index.js";

/** The end of the class that answers a kind of task; others are classes of a text. */
const classEnds: Partial<Record<Task["kind"], string>> = {
  image: "ImageClassification",
  choice: "MultipleChoice",
  tokens: "TokenClassification",
  span: "QuestionAnswering",
};
const problems: Partial<Record<Task["kind"], string>> = {
  regression: "regression",
  "multi-label": "multi_label_classification",
};

/** A base's config with the class and the labels of a task. */
export function taskConfig(config: Readonly<Record<string, unknown>>, task: Task): Record<string, unknown> {
  const stem = checkpointTypeOf(config["model_type"])?.className;
  const problem = problems[task.kind];
  const labels = task.labels ?? [];
  return {
    ...config,
    ...(stem && { architectures: [`${stem}For${classEnds[task.kind] ?? "SequenceClassification"}`] }),
    ...(problem !== undefined && { problem_type: problem }),
    ...(task.kind === "regression" && {
      num_labels: 1,
      id2label: { 0: "LABEL_0" },
      label2id: { LABEL_0: 0 },
    }),
    ...(labels.length > 0 && {
      num_labels: labels.length,
      id2label: Object.fromEntries(labels.map((label, i) => [String(i), label])),
      label2id: Object.fromEntries(labels.map((label, i) => [label, i])),
    }),
  };
}
