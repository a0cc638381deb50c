/** The merges that are trained, by what is other in them than in SuperMerge. */
export const trainedMethods = ["supermerge", "adamerging", "adamerging++"] as const;
export const variants = ["original", "fusion_bench"] as const;
export const treatments = ["none", "ties", "dare"] as const;

/**
 * AdaMerging as its authors' code has it: two batches of 16 a task and step, 500 steps, λ from 0.3,
 * clamped to [0, 1].
 */
const adaMerging = {
  loss: "entropy",
  gate: "clamp",
  init: 0.3,
  lr: 0.001,
  steps: 500,
  batchSize: 16,
  batchesPerStep: 2,
  holdout: 0,
} as const;
const fusionBench = {
  loss: "entropy-fusion_bench",
  gate: "identity",
  steps: 1000,
  batchesPerStep: 1,
} as const;

/** What a method's name stands for, where a user does not say otherwise. */
export function presetOf(method: unknown, variant: unknown): Readonly<Record<string, unknown>> {
  if (method !== "adamerging" && method !== "adamerging++") return {};
  return {
    ...adaMerging,
    ...(variant === "fusion_bench" && fusionBench),
    ...(method === "adamerging++" && { treat: "ties" }),
  };
}

/** What `compare` calls them. `@test`: adapted on the test inputs, without labels. */
export const trainedPresets: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  "adamerging-task-wise": { method: "adamerging", granularity: "model" },
  adamerging: { method: "adamerging" },
  "adamerging++": { method: "adamerging++" },
  "adamerging-fusion_bench": { method: "adamerging", variant: "fusion_bench" },
  "adamerging@test": { method: "adamerging", adaptOn: "test" },
  "adamerging++@test": { method: "adamerging++", adaptOn: "test" },
  supermerge: {},
  "supermerge-ties": { treat: "ties" },
  "supermerge-dare": { treat: "dare" },
};
