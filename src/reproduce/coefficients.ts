import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { heatmapSpec } from "../report/heatmap.js";
import { mean } from "../report/interval.js";
import { tableOf } from "./shared.js";
import type { Figure, Lab, Produced } from "./types.js";

/** What a merge writes of its coefficients; layers are in the model's order. */
interface Learned {
  readonly layers: readonly { readonly id: string }[];
  readonly tasks: readonly string[];
  readonly entries: readonly {
    readonly layer: string;
    readonly task: string;
    readonly coefficient: number;
  }[];
}

const names = ["supermerge", "adamerging++"] as const;

/** Kinds of weights, in this order: an attention's norm is a norm. */
const kinds = [
  ["norms", /norm|ln_/i],
  ["embeddings", /embed|wte|wpe|^shared/i],
  ["attention", /att|\.[qkv]\b|[qkvo]_proj/i],
  ["feed-forward", /inter|mlp|dense|fc\d|c_fc/i],
] as const;

/** Layers by kind of weight; of a model that has both, the encoder's and the decoder's apart. */
export function byKind(layers: readonly string[]): Map<string, string[]> {
  const both =
    layers.some((layer) => layer.startsWith("decoder.")) &&
    layers.some((layer) => layer.startsWith("encoder."));
  const found = new Map<string, string[]>();
  for (const layer of layers) {
    const side = both ? /^(?:encoder|decoder)(?=\.)/.exec(layer)?.[0] : undefined;
    const kind = [side, kinds.find(([, pattern]) => pattern.test(layer))?.[0] ?? "other"]
      .filter(Boolean)
      .join(", ");
    found.set(kind, [...(found.get(kind) ?? []), layer]);
  }
  return found;
}

const near = (value: number): boolean => Math.abs(value) < 0.01;
const idsOf = ({ layers }: Learned): string[] => layers.map(({ id }) => id);
const valuesOf = ({ entries }: Learned, layers: readonly string[]): number[] => {
  const mine = new Set(layers);
  return entries.filter(({ layer }) => mine.has(layer)).map(({ coefficient }) => coefficient);
};

function map(
  name: string,
  title: string,
  { tasks, entries }: Learned,
  layers: readonly string[],
  bound: number,
): Figure {
  const at = new Map(entries.map(({ layer, task, coefficient }) => [`${layer}\n${task}`, coefficient]));
  return {
    name,
    title,
    spec: heatmapSpec({
      title: "",
      tasks,
      layers,
      bound,
      values: layers.map((layer) => tasks.map((task) => at.get(`${layer}\n${task}`)!)),
    }),
  };
}

/**
 * SuperMerge's figure 5: what SuperMerge and AdaMerging learn; the paper's AdaMerging is AdaMerging++
 * (its footnote 3).
 */
export async function coefficients(lab: Lab): Promise<Produced> {
  const [seed] = lab.seeds;
  const { rows, folder } = await lab.compare("coefficients", names, { keep: true, seeds: [seed!] });
  const found = await Promise.all(
    names.map(async (name) => ({
      name,
      of: JSON.parse(await readFile(join(folder(name, seed!), "coefficients.json"), "utf8")) as Learned,
    })),
  );
  const body = found.flatMap(({ name, of }) =>
    [...byKind(idsOf(of))].map(([kind, layers]) => {
      const values = valuesOf(of, layers);
      return [
        name,
        kind,
        String(values.length),
        mean(values).toFixed(3),
        String(values.filter(near).length),
        String(values.filter((value) => value < 0).length),
      ];
    }),
  );
  const numbers = Object.fromEntries(
    found.flatMap(({ name, of }) => {
      const [ids, all] = [idsOf(of), of.entries.map(({ coefficient }) => coefficient)];
      const middle = Math.ceil(ids.length / 2);
      const size = (layers: readonly string[]) => mean(valuesOf(of, layers).map(Math.abs));
      return [
        [`part of nothing, ${name}`, all.filter(near).length / all.length],
        [`part below nothing, ${name}`, all.filter((value) => value < 0).length / all.length],
        [`mean |coefficient| of the earlier half, ${name}`, size(ids.slice(0, middle))],
        [`mean |coefficient| of the later half, ${name}`, size(ids.slice(middle))],
      ];
    }),
  );
  const [ours] = found;
  const bound = Math.max(
    ...found.flatMap(({ of }) => of.entries.map(({ coefficient }) => Math.abs(coefficient))),
  );
  return {
    rows,
    seeds: [seed!],
    numbers,
    tables: [
      tableOf("results", rows, lab),
      {
        name: "kinds",
        caption: "coefficients by kind of weight",
        table: {
          head: [
            "method",
            "kind of weight",
            "coefficients",
            "mean",
            "nothing (within 0.01)",
            "below nothing",
          ],
          body,
        },
      },
    ],
    figures: [
      ...found.map(({ name, of }) =>
        map(name, `Coefficients of ${name}, layers × experts`, of, idsOf(of), bound),
      ),
      // The paper's part b, which is SuperMerge's alone.
      ...[...byKind(idsOf(ours!.of))].map(([kind, layers]) =>
        map(
          `supermerge-${kind.replace(", ", "-")}`,
          `Coefficients of supermerge, ${kind}`,
          ours!.of,
          layers,
          bound,
        ),
      ),
    ],
  };
}
