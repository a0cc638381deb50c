/** What methods without training come to where it is a sum of the models. */

/** base · b + Σ w_i · input_i. */
export interface SumWeights {
  readonly base: number;
  readonly inputs: readonly number[];
}

/** base + Σ c_i (input_i − base). */
export const ofTaskVectors = (coefficients: readonly number[]): SumWeights => ({
  base: 1 - coefficients.reduce((sum, c) => sum + c, 0),
  inputs: coefficients,
});

/** A method's parameters, as recorded. */
export type Values = Readonly<Record<string, unknown>>;

/** A parameter that is one number for all models, or one for each. */
export function numbersOf(values: Values, key: string, count: number): number[] {
  const given = values[key];
  if (Array.isArray(given)) return given.map(Number);
  return Array.from({ length: count }, () => Number(given ?? 1));
}

/** Whether entries of task vectors are dropped first. */
export const dropsAny = (values: Values, count: number): boolean =>
  "dareP" in values && numbersOf(values, "dareP", count).some((p) => p > 0);

/** Whether later blocks count for more (LiNeS): that is not worked out again. */
export const scalesBlocks = (values: Values): boolean => Number(values["lines"] ?? 1) !== 1;

/** What a method without training does; undefined where sums do not say it. */
export function methodWeights(method: string, values: Values, count: number): SumWeights | undefined {
  if (dropsAny(values, count) || scalesBlocks(values)) return undefined;
  const weight = numbersOf(values, "weight", count);
  const total = weight.reduce((sum, one) => sum + one, 0);
  let divisor = 1;
  // What adds up to nothing is not divided by it.
  if (values["normalize"] === true && Math.abs(total) >= 1e-8) divisor = total;
  const shares = weight.map((one) => one / divisor);
  if (method === "average") return { base: 0, inputs: weight.map(() => 1 / count) };
  if (method === "passthrough") return { base: 0, inputs: numbersOf(values, "scale", count) };
  if (method === "linear") return { base: 0, inputs: shares };
  if (method === "task-arithmetic") return ofTaskVectors(shares.map((one) => one * Number(values["lambda"])));
  return undefined;
}
