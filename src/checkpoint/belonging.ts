/**
 * Whether experts were tuned from their base, by a sample of their task vectors (expert − base). Numbers cannot prove
 * it: what stands out is told, and refused where the user wants that.
 */
import { at, f32 } from "../at.js";
import { UserError } from "../errors.js";
import { isFloat } from "../tensor/dtype.js";
import type { Member } from "./family.js";
import { isOptional } from "./names.js";

/** Matrices that are looked at, spread evenly over the model, and entries of each: under a megabyte a model. */
const sampledMatrices = 12;
const sampledEntries = 16_384;

/** Of another base a task vector is as large as the weights; fine-tuning changes them by a few percent. */
const largeShare = 0.5;

/** So many times as large as the median of the other experts' stands out. */
const outlier = 10;

/** Two task vectors with so small an angle are one. */
const sameCosine = 0.99999;

/** Names of matrices that all models have in one shape, and rows of each that are read. */
function sampleOf(base: Member, experts: readonly Member[]): { name: string; rows: number; width: number }[] {
  const entryIn = ({ actual, checkpoint }: Member, name: string) => {
    const stored = actual.get(name);
    return stored === undefined ? undefined : checkpoint.entry(stored);
  };
  const matrices = [...base.actual.keys()].flatMap((name) => {
    const entry = entryIn(base, name);
    const [rows, width] = entry?.shape ?? [];
    if (!entry || rows === undefined || width === undefined || entry.shape.length !== 2) return [];
    const fits = (one: Member): boolean => {
      const own = entryIn(one, name);
      return own !== undefined && isFloat(own.dtype) && own.shape.join() === entry.shape.join();
    };
    if (isOptional(name) || rows * width === 0 || ![base, ...experts].every(fits)) return [];
    return [{ name, rows: Math.min(rows, Math.ceil(sampledEntries / width)), width }];
  });
  const step = Math.max(1, matrices.length / sampledMatrices);
  const count = Math.min(matrices.length, sampledMatrices);
  return Array.from({ length: count }, (_, i) => at(matrices, Math.floor(i * step)));
}

/** Dot products of some vectors, and the square of what they are taken from. */
interface Products {
  /** ⟨τ_i, τ_j⟩ */
  readonly dots: readonly Float64Array[];
  /** ‖base‖² */
  base: number;
}

async function productsOf(base: Member, experts: readonly Member[]): Promise<Products> {
  const found: Products = { dots: experts.map(() => new Float64Array(experts.length)), base: 0 };
  for (const { name, rows, width } of sampleOf(base, experts)) {
    const own = await base.rows(name, [[0, rows]], width);
    for (const x of own) found.base += x * x;
    const vectors: Float32Array[] = [];
    for (const expert of experts) {
      const values = Float32Array.from(await expert.rows(name, [[0, rows]], width));
      vectors.push(values.map((x, i) => x - f32(own, i)));
    }
    for (const [i, a] of vectors.entries())
      for (const [j, b] of vectors.slice(0, i + 1).entries()) {
        let sum = 0;
        for (let k = 0; k < a.length; k++) sum += f32(a, k) * f32(b, k);
        const row = at(found.dots, i);
        row[j] = (row[j] ?? 0) + sum;
      }
  }
  return found;
}

const percent = (share: number): string => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

/** What stands out of experts, by the sizes and angles of their task vectors; a line each. */
export function standingOut(labels: readonly string[], { dots, base }: Products): string[] {
  if (base === 0) return [];
  const squares = labels.map((_, i) => at(dots, i)[i] ?? 0);
  const shares = squares.map((square) => Math.sqrt(square / base));
  const lines: string[] = [];
  for (const [i, label] of labels.entries()) {
    const share = at(shares, i);
    const others = shares.filter((_, j) => j !== i).sort((a, b) => a - b);
    const median = others.length ? at(others, Math.floor(others.length / 2)) : 0;
    if (share === 0) lines.push(`${label} is the base itself, as far as a sample of its weights tells`);
    else if (share > largeShare || (median > 0 && share > outlier * median))
      lines.push(
        `${label}: its task vector is ${percent(share)} as large as the base's weights` +
          `${median > 0 ? ` (the others': ${percent(median)})` : ""}; was it tuned from this base?`,
      );
    for (const [j, other] of labels.slice(0, i).entries()) {
      const cosine = (at(dots, i)[j] ?? 0) / Math.sqrt(at(squares, i) * at(squares, j));
      const isSameSize = Math.abs(share - at(shares, j)) <= 1e-6 * share;
      if (cosine > sameCosine && isSameSize)
        lines.push(`${label} and ${other} are one model, as far as a sample tells`);
    }
  }
  return lines;
}

/**
 * Looks at a sample of the experts' weights. Held: that sample, under a megabyte a model.
 * @param strict refuses what stands out
 * @returns what stands out, a line each
 */
export async function checkBelonging(
  base: Member,
  experts: readonly Member[],
  strict: boolean,
): Promise<string[]> {
  const lines = standingOut(
    experts.map(({ label, checkpoint }) => `${checkpoint.folder} (${label})`),
    await productsOf(base, experts),
  );
  if (strict && lines.length) throw new UserError(`--strict: ${lines.join("; ")}`);
  return lines;
}
