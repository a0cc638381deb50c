/** Where task vectors live between two uses. */
export const residencies = ["device", "host", "disk"] as const;
export type Residency = (typeof residencies)[number];

/**
 * What one part of streamed task vectors takes as float32, all experts together (at least a row of
 * each): a bound that does not grow with the number of experts.
 */
export const partBytes = 4 * 2 ** 20;

/** A piece of an output layer that is merged, used and gone (stages/output.ts), as float32. */
export const outputPieceBytes = 32 * 2 ** 20;

/**
 * What activations between two blocks may take of host memory in an evaluation; more examples go in
 * several sweeps.
 */
export const sweepBytes = 2 ** 28;
