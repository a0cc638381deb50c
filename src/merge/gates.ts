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

function within(coefficient: number, low: number, high: number, open: boolean): number {
  const inside = open ? coefficient > low && coefficient < high : coefficient >= low && coefficient <= high;
  if (!inside)
    throw new RangeError(`${coefficient} is outside ${open ? "(" : "["}${low}, ${high}${open ? ")" : "]"}`);
  return coefficient;
}

export const gates = {
  /** SuperMerge, eq. 4: coefficients in (−1, 1). */
  tanh: {
    apply: Math.tanh,
    slope: (raw: number) => 1 - Math.tanh(raw) ** 2,
    inverse: (c: number) => Math.atanh(within(c, -1, 1, true)),
  },
  sigmoid: {
    apply: (raw: number) => 1 / (1 + Math.exp(-raw)),
    slope: (raw: number) => Math.exp(-Math.abs(raw)) / (1 + Math.exp(-Math.abs(raw))) ** 2,
    inverse: (c: number) => -Math.log(1 / within(c, 0, 1, true) - 1),
  },
  /** AdaMerging: clamp to [0, 1]. Outside, the slope is zero and a coefficient can die, as in the authors' code. */
  clamp: {
    apply: (raw: number) => Math.min(1, Math.max(0, raw)),
    slope: (raw: number) => (raw >= 0 && raw <= 1 ? 1 : 0),
    inverse: (c: number) => within(c, 0, 1, false),
  },
  /** SuperMerge's ablation (table 4): no gate. */
  identity: {
    apply: (raw: number) => raw,
    slope: () => 1,
    inverse: (c: number) => c,
  },
} satisfies Record<string, Gate>;

/**
 * The nearest coefficient to this one that a gate can reach from a finite number, with a slope that is
 * not nothing.
 */
export function reachable(gate: GateName, coefficient: number): number {
  const [low, high] = {
    tanh: [-0.999, 0.999],
    sigmoid: [0.001, 0.999],
    clamp: [0, 1],
    identity: [-Infinity, Infinity],
  }[gate] as [number, number];
  return Math.min(high, Math.max(low, coefficient));
}

export type GateName = keyof typeof gates;
export const gateNames = Object.keys(gates) as [GateName, ...GateName[]];
