/** What tasks are measured by: which metrics each kind of task takes, and those that it has where none are named. */
export const metricNames = [
  "accuracy",
  "exact-match",
  "f1",
  "f1-macro",
  "f1-micro",
  "matthews",
  "pearson",
  "spearman",
  "entity-f1",
  "span-f1",
  "rouge1",
  "rouge2",
  "rougeL",
  "gsm8k",
  "math",
  "ndcg@10",
  "mrr@10",
  "accuracy@1",
] as const;
export type MetricName = (typeof metricNames)[number];

const ofClasses: readonly MetricName[] = ["accuracy", "f1", "f1-macro", "f1-micro", "matthews"];

/** By the kind of a task. */
export const metricsOfKind = {
  single: ofClasses,
  pair: ofClasses,
  image: ofClasses,
  choice: ["accuracy"],
  generate: ["exact-match", "span-f1", "rouge1", "rouge2", "rougeL", "gsm8k", "math"],
  regression: ["pearson", "spearman"],
  "multi-label": ["f1-micro", "f1-macro", "exact-match"],
  tokens: ["entity-f1", "accuracy", "f1-macro", "f1-micro"],
  span: ["span-f1", "exact-match"],
  similarity: ["spearman", "pearson"],
  retrieval: ["ndcg@10", "mrr@10", "accuracy@1"],
  chat: ["rougeL", "rouge1", "rouge2", "exact-match", "span-f1", "gsm8k", "math"],
} as const satisfies Readonly<Record<string, readonly MetricName[]>>;

export type TaskKind = keyof typeof metricsOfKind;

/** Whether labels are of entities: B-PER, I-PER … */
export const areEntities = (labels: readonly string[]): boolean =>
  labels.some((label) => /^[BIESLU]-/.test(label)) && labels.every((label) => /^(O$|[BIESLU]-)/.test(label));

/** What a task is measured by where it does not say so; the first chooses between models. */
export function customaryMetrics(kind: TaskKind, labels: readonly string[] | null): readonly MetricName[] {
  if (kind === "tokens")
    return areEntities(labels ?? []) ? ["entity-f1", "accuracy"] : ["accuracy", "f1-macro"];
  if (kind === "regression" || kind === "multi-label" || kind === "span") return metricsOfKind[kind];
  if (kind === "similarity" || kind === "retrieval") return metricsOfKind[kind];
  if (kind === "generate") return ["exact-match"];
  if (kind === "chat") return ["rougeL"];
  return ["accuracy"];
}
