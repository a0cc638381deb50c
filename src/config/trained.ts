/** The merges that are trained, by what is other in them than in SuperMerge. */
export const trainedMethods = ["supermerge", "adamerging", "adamerging++"] as const;
export const variants = ["original", "fusion_bench"] as const;
export const treatments = ["none", "ties", "dare", "tsv-m"] as const;

/** A training of coefficients that has a name of its own. */
export interface TrainedPreset {
  /** One line for the help, with where it comes from. */
  readonly about: string;
  /** Settings that are other than SuperMerge's. */
  readonly settings: Readonly<Record<string, string>>;
}

const preset = (about: string, settings: TrainedPreset["settings"] = {}): TrainedPreset => ({
  about,
  settings,
});

/** What `compare` calls them. `@test`: adapted on the test inputs, without labels. */
export const trainedPresets: Readonly<Record<string, TrainedPreset>> = {
  supermerge: preset("a coefficient a layer and model, learned from labelled examples (Yang et al. 2024)"),
  "supermerge-tsv-m": preset("supermerge on task vectors that tsv-m made orthogonal to each other", {
    treat: "tsv-m",
  }),
  "supermerge-ties": preset("supermerge on task vectors that ties trimmed", { treat: "ties" }),
  "supermerge-dare": preset("supermerge on task vectors that dare thinned", { treat: "dare" }),
  "supermerge-distillation": preset("supermerge, learned from what each model itself says of its inputs", {
    loss: "distillation",
  }),
  "supermerge-distillation-tsv-m": preset(
    "supermerge-distillation on task vectors that tsv-m made orthogonal",
    {
      loss: "distillation",
      treat: "tsv-m",
    },
  ),
  "supermerge-block-distillation": preset(
    "supermerge, block by block: each block's output near to each model's own (Xu et al. 2025, ProDistill)",
    { loss: "block-distillation" },
  ),
  "supermerge-entropy": preset("supermerge, learned from how sure the merge is", { loss: "entropy" }),
  adamerging: preset("a coefficient a layer and model by entropy, between 0 and 1 (Yang et al. 2023)", {
    method: "adamerging",
  }),
  "adamerging-task-wise": preset("a coefficient a model by entropy", {
    method: "adamerging",
    granularity: "model",
  }),
  "adamerging++": preset("adamerging on task vectors that ties trimmed", { method: "adamerging++" }),
  "adamerging-fusion_bench": preset("adamerging as fusion_bench runs it", {
    method: "adamerging",
    variant: "fusion_bench",
  }),
  "adamerging@test": preset("adamerging on the test inputs, as its paper has it", {
    method: "adamerging",
    adaptOn: "test",
  }),
  "adamerging++@test": preset("adamerging++ on the test inputs", { method: "adamerging++", adaptOn: "test" }),
};
