/**
 * What a merge is written as: a model, or an adapter where all its experts are adapters of one kind
 * (`auto` takes that).
 */
export const writeForms = ["auto", "model", "adapter"] as const;
export type WriteForm = (typeof writeForms)[number];
