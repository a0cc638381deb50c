/** What to try first on some experts: by what there is to learn from, their width, and how unlike their changes are. */
import { at, f32, f64 } from "../at.js";
import { adapterOf, storedEntry, type Member } from "../checkpoint/family.js";
import { UserError } from "../errors.js";
import { labelsOf } from "./models.js";
import { withMembers } from "./members.js";

/** What there is to learn from. */
export const knownData = ["none", "inputs", "labels"] as const;
export type KnownData = (typeof knownData)[number];

export interface Choice {
  /** As `compare` calls it. */
  readonly method: string;
  readonly why: string;
}

export interface Chosen {
  readonly experts: number;
  readonly adapters: boolean;
  /** The smaller side of the widest layer. */
  readonly width: number;
  /** Cosines of the experts' task vectors, over a sample; undefined of one expert. */
  readonly cosine: { readonly least: number; readonly mean: number; readonly most: number } | undefined;
  readonly choices: readonly Choice[];
}

/** Beyond so many dimensions singular vectors take hours in JavaScript, and nothing was measured. */
const widest = 800;
/** Task vectors that lie so near to each other are nearly one. */
const alike = 0.8;

/** A layer's matrix, as headers have it. */
interface Layer {
  readonly name: string;
  readonly rows: number;
  readonly width: number;
}

/** Matrices that all models have in one shape; tables, whose rows are looked up, are none. */
function layersOf(base: Member, experts: readonly Member[]): Layer[] {
  return [...base.actual.keys()].flatMap((name) => {
    const { shape } = storedEntry(base, name);
    const [rows, width] = shape;
    if (rows === undefined || width === undefined || shape.length !== 2 || rows > 16 * width) return [];
    const isEverywhere = experts.every(
      (expert) => expert.actual.has(name) && storedEntry(expert, name).shape.join() === shape.join(),
    );
    return isEverywhere ? [{ name, rows, width }] : [];
  });
}

/** Entries of a layer that are looked at, and how many layers are. */
const [mostEntries, mostLayers] = [1 << 20, 12];

/** Cosines of every two experts' task vectors, over some rows of some layers. */
async function cosinesOf(
  base: Member,
  experts: readonly Member[],
  layers: readonly Layer[],
): Promise<number[]> {
  const k = experts.length;
  const products = new Float64Array(k * k);
  const stride = Math.max(1, Math.floor(layers.length / mostLayers));
  for (const { name, rows, width } of layers.filter((_, i) => i % stride === 0)) {
    const run = [0, Math.max(1, Math.min(rows, Math.floor(mostEntries / width)))] as const;
    const from = await base.rows(name, [run], width);
    const deltas: Float32Array[] = [];
    for (const expert of experts)
      deltas.push((await expert.rows(name, [run], width)).map((x, i) => x - f32(from, i)));
    for (const [i, a] of deltas.entries())
      for (const [j, b] of deltas.slice(0, i + 1).entries()) {
        let sum = 0;
        for (const [e, x] of a.entries()) sum += x * f32(b, e);
        products[i * k + j] = f64(products, i * k + j) + sum;
      }
  }
  return experts.flatMap((_, i) =>
    experts.slice(0, i).map((__, j) => {
      const [square, other] = [f64(products, i * k + i), f64(products, j * k + j)];
      return square > 0 && other > 0 ? f64(products, i * k + j) / Math.sqrt(square * other) : 0;
    }),
  );
}

const choice = (method: string, why: string): Choice => ({ method, why });
const orthogonal = "what experts disturb in each other is taken out first; the best here without a label";

/** By what was measured in experiments/methods. */
const byData: Readonly<
  Record<KnownData, { readonly narrow: readonly Choice[]; readonly wide: readonly Choice[] }>
> = {
  none: {
    narrow: [
      choice("tsv-m", "the one method that was good on both families with nothing to search λ by"),
      choice("ties", "seconds, and any width"),
      choice("task-arithmetic", "what the others are held against"),
    ],
    wide: [
      choice("ties", "any width, and exact over the whole model"),
      choice("task-arithmetic", "what the others are held against"),
      choice("dare", "as task arithmetic, with what it leaves out drawn"),
    ],
  },
  inputs: {
    narrow: [
      choice("supermerge-distillation-tsv-m", orthogonal),
      choice("supermerge-distillation", "learns what each expert says of its inputs"),
      choice("tsv-m", "uses no inputs"),
    ],
    wide: [
      choice("supermerge-distillation", "learns what each expert says of its inputs"),
      choice("supermerge-block-distillation", "a block on the device at a time"),
      choice("ties", "uses no inputs"),
    ],
  },
  labels: {
    narrow: [
      choice("supermerge-tsv-m", "the best of those that were tried here"),
      choice("supermerge-distillation-tsv-m", orthogonal),
      choice("tsv-m", "λ searched with the labels, nothing trained"),
    ],
    wide: [
      choice("supermerge", "a coefficient a layer and expert"),
      choice("supermerge-distillation", "learns what each expert says, which is more than a label"),
      choice("task-arithmetic", "λ searched with the labels, nothing trained"),
    ],
  },
};

/**
 * Looks at headers and a sample of the weights, and names three methods to try.
 * @throws UserError where the models do not belong together, or have no layer in common
 */
export async function chooseMethods(
  base: string,
  models: readonly string[],
  data: KnownData,
): Promise<Chosen> {
  const labels = labelsOf(models);
  const folders = models.map((folder, i) => ({ label: at(labels, i), folder, on: base }));
  const all = [...folders, { label: "base", folder: base }];
  return withMembers(all, { reference: models.length, hasBase: true }, async (members) => {
    const [experts, own] = [members.slice(0, models.length), at(members, models.length)];
    const layers = layersOf(own, experts);
    if (layers.length === 0) throw new UserError(`${base}: the experts have no layer in common with it`);
    const cosines = await cosinesOf(own, experts, layers);
    const width = Math.max(...layers.map((layer) => Math.min(layer.rows, layer.width)));
    const mean = cosines.reduce((sum, one) => sum + one, 0) / Math.max(1, cosines.length);
    const { narrow, wide } = byData[data];
    const byWidth = width > widest ? wide : narrow;
    const near = choice("average", "the experts changed nearly the same: their mean loses little");
    return {
      experts: experts.length,
      adapters: experts.some((expert) => adapterOf(expert) !== undefined),
      width,
      cosine:
        cosines.length > 0 ? { least: Math.min(...cosines), mean, most: Math.max(...cosines) } : undefined,
      choices: mean > alike ? [near, ...byWidth.slice(0, 2)] : byWidth,
    };
  });
}
