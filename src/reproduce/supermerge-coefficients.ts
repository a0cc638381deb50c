import { join } from "node:path";
import { z } from "zod";
import { at, lookUp } from "../at.js";
import { readJson } from "../checkpoint/files.js";
import { heatmapSpec } from "../report/heatmap.js";
import { mean } from "../report/rows.js";
import { bestOf, claim } from "./claims.js";
import { firstSeed, resultsTable } from "./shared.js";
import type { CaptionedTable, Experiment, Figure, Lab, Produced } from "./types.js";

/** What a merge writes of its coefficients; layers are in the model's order. */
const learnedFile = z.object({
  layers: z.array(z.object({ id: z.string() })),
  tasks: z.array(z.string()),
  entries: z.array(z.object({ layer: z.string(), task: z.string(), coefficient: z.number() })),
});
type Coefficients = z.infer<typeof learnedFile>;

/** The coefficients that a method learned. */
interface Learned {
  readonly name: string;
  readonly of: Coefficients;
}

/** Kinds of weights, in this order: an attention's norm is a norm. */
const kinds = [
  ["norms", /norm|ln_/i],
  ["embeddings", /embed|wte|wpe|^shared/i],
  ["attention", /att|\.[qkv]\b|[qkvo]_proj/i],
  ["feed-forward", /inter|mlp|dense|fc\d|c_fc/i],
] as const;

/** What says on which side of a model a layer is, where it has two. */
function sidesOf(layers: readonly string[]): RegExp | undefined {
  const has = (side: string) => layers.some((layer) => layer.startsWith(`${side}.`));
  if (has("decoder") && has("encoder")) return /^(?:encoder|decoder)(?=\.)/;
  return undefined;
}

/** Layers by kind of weight; of a model that has both, the encoder's and the decoder's apart. */
export function byKind(layers: readonly string[]): Map<string, string[]> {
  const sides = sidesOf(layers);
  const found = new Map<string, string[]>();
  for (const layer of layers) {
    const side = sides?.exec(layer)?.[0];
    const kind = kinds.find(([, pattern]) => pattern.test(layer))?.[0] ?? "other";
    const key = [side, kind].filter(Boolean).join(", ");
    found.set(key, [...(found.get(key) ?? []), layer]);
  }
  return found;
}

const isNearNothing = (value: number): boolean => Math.abs(value) < 0.01;
const idsOf = ({ layers }: Coefficients): string[] => layers.map(({ id }) => id);
const allOf = ({ entries }: Coefficients): number[] => entries.map(({ coefficient }) => coefficient);
const ofLayers = ({ entries }: Coefficients, layers: readonly string[]): number[] => {
  const mine = new Set(layers);
  return entries.filter(({ layer }) => mine.has(layer)).map(({ coefficient }) => coefficient);
};

/** A map of some layers' coefficients; several are compared by one bound. */
function coefficientMap(
  { tasks, entries }: Coefficients,
  layers: readonly string[],
  { name, title, bound }: { readonly name: string; readonly title: string; readonly bound: number },
): Figure {
  const byPlace = new Map(entries.map(({ layer, task, coefficient }) => [`${layer}\n${task}`, coefficient]));
  const values = layers.map((layer) => tasks.map((task) => lookUp(byPlace, `${layer}\n${task}`)));
  return { name, title, spec: heatmapSpec({ title: "", tasks, layers, bound, values }) };
}

const partOfNothing = (name: string): string => `part of nothing, ${name}`;
const partBelowNothing = (name: string): string => `part below nothing, ${name}`;
const meanOfHalf = (half: "earlier" | "later", name: string): string =>
  `mean |coefficient| of the ${half} half, ${name}`;

function numbersOf({ name, of }: Learned): [string, number][] {
  const [ids, all] = [idsOf(of), allOf(of)];
  const middle = Math.ceil(ids.length / 2);
  const meanSize = (layers: readonly string[]) => mean(ofLayers(of, layers).map(Math.abs));
  return [
    [partOfNothing(name), all.filter(isNearNothing).length / all.length],
    [partBelowNothing(name), all.filter((value) => value < 0).length / all.length],
    [meanOfHalf("earlier", name), meanSize(ids.slice(0, middle))],
    [meanOfHalf("later", name), meanSize(ids.slice(middle))],
  ];
}

function kindsTable(learned: readonly Learned[]): CaptionedTable {
  const body = learned.flatMap(({ name, of }) =>
    [...byKind(idsOf(of))].map(([kind, layers]) => {
      const values = ofLayers(of, layers);
      return [
        name,
        kind,
        String(values.length),
        mean(values).toFixed(3),
        String(values.filter(isNearNothing).length),
        String(values.filter((value) => value < 0).length),
      ];
    }),
  );
  return {
    name: "kinds",
    caption: "coefficients by kind of weight",
    table: {
      head: ["method", "kind of weight", "coefficients", "mean", "nothing (within 0.01)", "below nothing"],
      body,
    },
  };
}

async function readLearned(name: string, folder: string): Promise<Learned> {
  return { name, of: learnedFile.parse(await readJson(join(folder, "coefficients.json"))) };
}

/**
 * SuperMerge's figure 5: what SuperMerge and AdaMerging learn; the paper's AdaMerging is AdaMerging++
 * (its footnote 3).
 */
async function coefficientFigures(lab: Lab): Promise<Produced> {
  const seed = firstSeed(lab);
  const names = ["supermerge", "adamerging++"];
  const { rows, folder } = await lab.compare("coefficients", names, { keep: true, seeds: [seed] });
  const learned = await Promise.all(names.map((name) => readLearned(name, folder(name, seed))));
  const bound = Math.max(...learned.flatMap(({ of }) => allOf(of).map(Math.abs)));
  // The paper's part b is SuperMerge's alone.
  const { of: ours } = at(learned, 0);
  return {
    rows,
    seeds: [seed],
    numbers: Object.fromEntries(learned.flatMap(numbersOf)),
    tables: [resultsTable("results", rows, lab), kindsTable(learned)],
    figures: [
      ...learned.map(({ name, of }) => {
        const title = `Coefficients of ${name}, layers × experts`;
        return coefficientMap(of, idsOf(of), { name, title, bound });
      }),
      ...[...byKind(idsOf(ours))].map(([kind, layers]) => {
        const name = `supermerge-${kind.replace(", ", "-")}`;
        return coefficientMap(ours, layers, { name, title: `Coefficients of supermerge, ${kind}`, bound });
      }),
    ],
  };
}

export const figure5: Experiment = {
  id: "supermerge/figure-5",
  what: "coefficients by layer and task, AdaMerging++ beside SuperMerge, and by kind of weight",
  minutes: [3, 20],
  models: 3,
  run: coefficientFigures,
  claims: [
    claim(
      "AdaMerging++ leaves more of its coefficients at nothing than SuperMerge does",
      ({ number }) => number(partOfNothing("adamerging++")) > number(partOfNothing("supermerge")),
    ),
    claim(
      "SuperMerge takes some layers of some experts away: coefficients below nothing, which " +
        "AdaMerging++ has none of",
      ({ number }) =>
        number(partBelowNothing("supermerge")) > 0 && number(partBelowNothing("adamerging++")) === 0,
    ),
    claim(
      "SuperMerge's coefficients of the earlier half of the layers are nearer to nothing than " +
        "those of the later half, on average",
      ({ number }) => number(meanOfHalf("earlier", "supermerge")) < number(meanOfHalf("later", "supermerge")),
    ),
    bestOf("SuperMerge's average is above AdaMerging++'s", "supermerge", ["adamerging++"]),
  ],
};
