/**
 * A gate turns a trained number into a coefficient. The table is small (layers × experts), so it is kept
 * and differentiated on the host, in float64: the same on every engine.
 */
export interface Gate {
  apply(raw: number): number;
  /** d apply / d raw. */
  slope(raw: number): number;
  /** A raw value whose coefficient is `coefficient`. @throws RangeError where the gate cannot reach it. */
  inverse(coefficient: number): number;
}

/** A coefficient strictly between two bounds. @throws RangeError */
function insideOpen(coefficient: number, low: number, high: number): number {
  if (coefficient > low && coefficient < high) return coefficient;
  throw new RangeError(`${coefficient} is outside (${low}, ${high})`);
}

/** The same where the bounds belong to it. */
function insideClosed(coefficient: number, low: number, high: number): number {
  if (coefficient >= low && coefficient <= high) return coefficient;
  throw new RangeError(`${coefficient} is outside [${low}, ${high}]`);
}

export const gateNames = ["tanh", "sigmoid", "clamp", "identity"] as const;
export type GateName = (typeof gateNames)[number];

export const gates: Readonly<Record<GateName, Gate>> = {
  /** SuperMerge, eq. 4: coefficients in (−1, 1). */
  tanh: {
    apply: Math.tanh,
    slope: (raw: number) => 1 - Math.tanh(raw) ** 2,
    inverse: (c: number) => Math.atanh(insideOpen(c, -1, 1)),
  },
  sigmoid: {
    apply: (raw: number) => 1 / (1 + Math.exp(-raw)),
    slope: (raw: number) => Math.exp(-Math.abs(raw)) / (1 + Math.exp(-Math.abs(raw))) ** 2,
    inverse: (c: number) => -Math.log(1 / insideOpen(c, 0, 1) - 1),
  },
  /** AdaMerging: clamp to [0, 1]. Outside, the slope is zero and a coefficient can die, as in the authors' code. */
  clamp: {
    apply: (raw: number) => Math.min(1, Math.max(0, raw)),
    slope: (raw: number) => Number(raw >= 0 && raw <= 1),
    inverse: (c: number) => insideClosed(c, 0, 1),
  },
  /** SuperMerge's ablation (table 4): no gate. */
  identity: {
    apply: (raw: number) => raw,
    slope: () => 1,
    inverse: (c: number) => c,
  },
};

/** Coefficients that a gate can reach from a finite number, with a slope that is not nothing. */
const reach: Readonly<Record<GateName, readonly [low: number, high: number]>> = {
  tanh: [-0.999, 0.999],
  sigmoid: [0.001, 0.999],
  clamp: [0, 1],
  identity: [-Infinity, Infinity],
};

/** The nearest coefficient to this one that a gate can reach. */
export function reachable(gate: GateName, coefficient: number): number {
  const [low, high] = reach[gate];
  return Math.min(high, Math.max(low, coefficient));
}
