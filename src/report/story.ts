/** What came out, in sentences. */
import { blockOf } from "../block-names.js";
import { blockName } from "./coefficient-map.js";
import { methodScores, type MethodScore } from "./methods-chart.js";
import { distinct, mean, type ResultRow } from "./rows.js";

/** Rows that are no merge: what the experts and the base do. */
export const references: ReadonlySet<string> = new Set(["individual", "pretrained"]);

const percent = (value: number): string => value.toFixed(1);
const listed = (items: readonly string[]): string =>
  items.length < 2 ? items.join("") : `${items.slice(0, -1).join(", ")} and ${items.at(-1)}`;

/** How one method's mean stands to another's; a difference is called one only where the intervals lie apart. */
export function beside(merge: MethodScore, other: MethodScore): string {
  const points = merge.mean - other.mean;
  const side = points >= 0 ? "above" : "below";
  const size = `${percent(Math.abs(points))} points ${side} ${other.method} (${percent(other.mean)})`;
  const apart = merge.low > other.high || merge.high < other.low;
  return apart ? size : `${size}, which so few examples or seeds do not tell apart`;
}

/** What a merge came to: the last of the rows, beside the experts and the best other merge. */
export function headline(rows: readonly ResultRow[], tasks: readonly string[]): string {
  const scores = methodScores(rows, tasks);
  const merges = scores.filter(({ method }) => !references.has(method));
  const merge = merges.at(-1);
  if (!merge) return "";
  const experts = scores.find(({ method }) => method === "individual");
  const others = merges.slice(0, -1).toSorted((a, b) => b.mean - a.mean);
  const [best] = others;
  const isRight = rows.every(({ metric }) => metric === "accuracy") ? "is right on" : "scores";
  const said = [
    `${merge.method} ${isRight} ${percent(merge.mean)} % (${percent(merge.low)} to ${percent(merge.high)}), ` +
      `on average over ${listed(tasks)}`,
  ];
  if (experts && experts.mean > 0)
    said.push(
      `the experts, each on its own task, come to ${percent(experts.mean)} %, of which it keeps ` +
        `${percent((100 * merge.mean) / experts.mean)} %`,
    );
  if (best) said.push(`it is ${beside(merge, best)}, the best of the other merges here`);
  const seeds = distinct(rows.map(({ seed }) => seed)).length;
  const counted = seeds > 1 ? `${seeds} seeds` : "one seed";
  return `${said.join("; ")}. Measured on ${merge.n} test examples, ${counted}.`;
}

/** One expert's coefficients. */
export interface Column {
  readonly task: string;
  readonly entries: readonly { readonly layer: string; readonly coefficient: number }[];
  /** Layers that the gate hardly moves any more; undefined where there is no gate to ask. */
  readonly saturated?: number | undefined;
}

const plural = (count: number, one: string, many: string): string => `${count} ${count === 1 ? one : many}`;

/** Where an expert counts most and least, and what of it does nothing. */
export function columnStory({ task, entries, saturated }: Column): string {
  const values = entries.map(({ coefficient }) => coefficient);
  const blocks = distinct(entries.map(({ layer }) => blockOf(layer)));
  const means = blocks
    .map((block) => ({
      block,
      mean: mean(
        entries.filter(({ layer }) => blockOf(layer) === block).map(({ coefficient }) => coefficient),
      ),
    }))
    .toSorted((a, b) => b.mean - a.mean);
  const [most, least] = [means[0], means.at(-1)];
  const dead = values.filter((value) => Math.abs(value) < 0.01).length;
  const negative = values.filter((value) => value <= -0.01).length;
  const where =
    most && least && means.length > 1
      ? `, most in ${blockName(most.block)} (${most.mean.toFixed(2)}) and least in ` +
        `${blockName(least.block)} (${least.mean.toFixed(2)})`
      : "";
  const odd = [
    ...(dead > 0 ? [`${plural(dead, "layer takes", "layers take")} nothing of it`] : []),
    ...(negative > 0 ? [`${plural(negative, "layer takes", "layers take")} its opposite`] : []),
    ...(saturated !== undefined && saturated > 0
      ? [`${saturated} are at the gate's end and move no more`]
      : []),
  ];
  const counts = `${task} counts ${mean(values).toFixed(2)} on average`;
  const also = odd.length > 0 ? `; ${odd.join(", ")}` : "";
  return `${counts} over ${plural(values.length, "layer", "layers")}${where}${also}.`;
}
