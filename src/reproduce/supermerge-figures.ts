/** SuperMerge's figures 2 and 3; 5 is in coefficients.ts. */
import { UserError } from "../errors.js";
import { linesSpec } from "../report/lines.js";
import { violinsSpec } from "../report/violins.js";
import { average, given, tableOf } from "./shared.js";
import type { Lab, Produced } from "./types.js";

export const lambdas = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];
export const swept = { "task-arithmetic": {}, ties: {}, dare: {}, "dare-ties": { dareP: 0.9 } } as const;

/** Figure 2: the average against λ, which has to be searched. */
export async function lambdaSweep(lab: Lab): Promise<Produced> {
  const candidates = Object.entries(swept).flatMap(([name, values]) =>
    lambdas.map((lambda) =>
      given(`${name}, λ ${lambda}`, name === "dare-ties" ? "ties" : name, { ...values, lambda }),
    ),
  );
  const { rows } = await lab.compare("lambda", [...candidates, "supermerge"]);
  const points = Object.keys(swept).flatMap((name) =>
    lambdas.map((lambda) => ({
      x: lambda,
      y: 100 * average(rows, `${name}, λ ${lambda}`, lab.tasks)!,
      series: name,
    })),
  );
  const line = 100 * average(rows, "supermerge", lab.tasks)!;
  const lead = line - Math.max(...points.map(({ y }) => y));
  return {
    rows,
    tables: [
      tableOf(
        "results",
        rows.filter(({ method }) => method !== "individual"),
        lab,
        `SuperMerge is ${Math.abs(lead).toFixed(1)} points ${lead > 0 ? "above" : "below"} the ` +
          "best of the others at any of these λ",
      ),
    ],
    figures: [
      {
        name: "lambda",
        title: "Average accuracy against λ (SuperMerge has none)",
        spec: linesSpec({
          title: "",
          x: "λ",
          y: "average accuracy, %",
          spacing: "linear",
          zero: false,
          points: [
            ...points,
            ...[lambdas[0]!, lambdas.at(-1)!].map((x) => ({ x, y: line, series: "supermerge" })),
          ],
        }),
      },
    ],
  };
}

export const unlike = "largest over smallest expert, of one layer";

/** Figure 3: how task vectors are spread, layer by layer. */
export async function violins(lab: Lab): Promise<Produced> {
  const spread: { layer: string; expert: string; values: readonly number[] }[] = [];
  const still = new Set<string>();
  for await (const { name, deltas } of lab.look()) {
    if (!name.endsWith("weight") || deltas[0]!.length < 256) continue;
    // Some hundred of a layer's entries, evenly, show how it is spread.
    const step = Math.max(1, Math.floor(deltas[0]!.length / 400));
    for (const [e, delta] of deltas.entries())
      spread.push({
        layer: name,
        expert: lab.tasks[e]!,
        values: Array.from({ length: Math.floor(delta.length / step) }, (_, i) => delta[i * step]!),
      });
    // Frozen embeddings have no shape to draw.
    if (spread.slice(-deltas.length).some(({ values }) => values.every((value) => value === 0)))
      still.add(name);
  }
  const moved = spread.filter(({ layer }) => !still.has(layer));
  if (!moved.length)
    throw new UserError("no weight matrix is changed by every expert: there is nothing to draw");
  const deviation = (values: readonly number[]) =>
    Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
  const by = lab.tasks.map((task) =>
    moved.filter(({ expert }) => expert === task).map(({ values }) => deviation(values)),
  );
  const apart = by[0]!.map(
    (_, layer) => Math.max(...by.map((one) => one[layer]!)) / Math.min(...by.map((one) => one[layer]!)),
  );
  const numbers: Record<string, number> = {
    ...Object.fromEntries(
      lab.tasks.map((task, i) => [
        `largest over smallest layer, ${task}`,
        Math.max(...by[i]!) / Math.min(...by[i]!),
      ]),
    ),
    [unlike]: Math.max(...apart),
  };
  return {
    rows: [],
    numbers,
    figures: lab.tasks.map((task) => ({
      name: `task-vector-${task}`,
      title: `Task vector of ${task}, layer by layer`,
      spec: violinsSpec({
        title: "",
        layers: moved.filter(({ expert }) => expert === task).map(({ layer, values }) => ({ layer, values })),
      }),
    })),
    tables: [
      {
        name: "spread",
        caption:
          "root mean square of the task vectors' entries: the layer with the most over the one " +
          "with the least; in the last row, of one layer, the expert with the most over the one " +
          `with the least${still.size ? `. ${still.size} layers that did not move in some expert are left out` : ""}`,
        table: {
          head: ["expert", "ratio"],
          body: [
            ...lab.tasks.map((task) => [task, numbers[`largest over smallest layer, ${task}`]!.toFixed(1)]),
            ["the layer in which they differ most", numbers[unlike]!.toFixed(1)],
          ],
        },
      },
    ],
  };
}
