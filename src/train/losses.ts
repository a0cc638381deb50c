/**
 * `cross-entropy` uses the labels (SuperMerge); `entropy` does not (AdaMerging), nor as fusion_bench writes it;
 * `distillation` learns what each task's expert says of its examples, and uses none either.
 */
export const lossNames = ["cross-entropy", "entropy", "entropy-fusion_bench", "distillation"] as const;
export type LossName = (typeof lossNames)[number];

/** Whether a loss looks at labels: only then may the best step be chosen by them. */
export const usesLabels = (loss: LossName): boolean => loss === "cross-entropy";
