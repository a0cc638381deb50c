/** The merges that are trained, by what is other in them than in SuperMerge. */
export const trainedMethods = ["supermerge", "adamerging", "adamerging++"] as const;
export const variants = ["original", "fusion_bench"] as const;
export const treatments = ["none", "ties", "dare", "tsv-m"] as const;

/** What `compare` calls them. `@test`: adapted on the test inputs, without labels. */
export const trainedPresets: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  "adamerging-task-wise": { method: "adamerging", granularity: "model" },
  adamerging: { method: "adamerging" },
  "adamerging++": { method: "adamerging++" },
  "adamerging-fusion_bench": { method: "adamerging", variant: "fusion_bench" },
  "adamerging@test": { method: "adamerging", adaptOn: "test" },
  "adamerging++@test": { method: "adamerging++", adaptOn: "test" },
  supermerge: {},
  "supermerge-entropy": { loss: "entropy" },
  "supermerge-distillation": { loss: "distillation" },
  "supermerge-ties": { treat: "ties" },
  "supermerge-dare": { treat: "dare" },
  "supermerge-tsv-m": { treat: "tsv-m" },
};
