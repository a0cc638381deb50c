import { interval, mean } from "../report/interval.js";
import { linesSpec } from "../report/lines.js";
import { scoreOf, type ResultRow } from "../report/rows.js";
import { shuffled } from "../tasks/split.js";
import { dareTies, pretrained } from "./shared.js";
import type { Experiment, Lab, Produced } from "./types.js";

const methods = ["average", "task-arithmetic", "ties", "dare-ties"];
const contenders = [pretrained, ...methods.map((name) => (name === "dare-ties" ? dareTies : name))];

/** A method's scores over another's, task by task, on average. */
function relative(rows: readonly ResultRow[], method: string, reference: string, tasks: readonly string[]): number {
  return mean(tasks.map((task) => scoreOf(rows, method, task)!.mean / scoreOf(rows, reference, task)!.mean));
}

/** Figures 1 and 2: more and more experts, drawn by the seed; the tasks that are left are held out. */
async function experts(lab: Lab): Promise<Produced> {
  const all = [...lab.tasks, ...lab.heldOut];
  const counts = [2, 3, 4, 6, 8].filter((k) => k <= all.length);
  const found: { k: number; method: string; where: "held-in" | "held-out"; value: number }[] = [];
  const rows: ResultRow[] = [];
  for (const seed of lab.seeds) {
    for (const k of counts) {
      const order = shuffled(all, `${seed}/experts`);
      const [tasks, heldOut] = [order.slice(0, k), order.slice(k)];
      const made = await lab.compare(`k${k}-seed${seed}`, contenders, { tasks, heldOut, seeds: [seed] });
      rows.push(...made.rows.filter(({ method, task }) => method !== "pretrained" || heldOut.includes(task)).map((row) => ({ ...row, method: `${row.method}, ${k} experts` })));
      for (const method of methods) {
        found.push({ k, method, where: "held-in", value: relative(made.rows, method, "individual", tasks) });
        if (heldOut.length) found.push({ k, method, where: "held-out", value: relative(made.rows, method, "pretrained", heldOut) });
      }
    }
  }
  const over = (method: string, where: string, k: number) => interval(found.filter((one) => one.method === method && one.where === where && one.k === k).map(({ value }) => value));
  const places = ["held-in", "held-out"] as const;
  const shown = counts.filter((k) => found.some((one) => one.k === k));
  return {
    rows, numbers: Object.fromEntries(places.flatMap((where) => methods.flatMap((method) => shown.filter((k) => over(method, where, k).count > 0).map((k) => [`${where}, ${method}, ${k} experts`, over(method, where, k).mean])))),
    tables: places.map((where) => ({ name: where, caption: `${where} accuracy over ${where === "held-in" ? "the expert's" : "the base's"}, mean over tasks and seeds ${lab.seeds.join(", ")}`, table: { head: ["method", ...shown.map((k) => `${k} experts`)], body: methods.map((method) => [method, ...shown.map((k) => (over(method, where, k).count ? `${over(method, where, k).mean.toFixed(3)}${over(method, where, k).count > 1 ? ` ± ${over(method, where, k).half.toFixed(3)}` : ""}` : "–"))]) } })),
    figures: places.map((where) => ({ name: where, title: `${where === "held-in" ? "Held-in, over the expert" : "Held-out, over the base"}, against the number of experts`, spec: linesSpec({ title: "", x: "experts", y: "relative accuracy", zero: false, points: methods.flatMap((method) => shown.filter((k) => over(method, where, k).count > 0).map((k) => ({ x: k, y: over(method, where, k).mean, series: method }))) }) })),
  };
}

export const atScale: readonly Experiment[] = [{
  id: "at-scale/experts", what: "methods × number of experts × seeds: held-in over the expert, held-out over the base", minutes: [6, 90], heldOut: true, run: experts,
  claims: [
    { text: "More experts cost held-in accuracy, for every method", holds: ({ numbers }) => methods.every((method) => {
      const values = Object.entries(numbers!).filter(([key]) => key.startsWith(`held-in, ${method},`)).map(([, value]) => value);
      return values.at(-1)! < values[0]!;
    }) },
    { text: "Merged experts are better than the base on tasks that none of them saw", holds: ({ numbers }) => {
      const values = Object.entries(numbers!).filter(([key]) => key.startsWith("held-out")).map(([, value]) => value);
      return values.length ? mean(values) > 1 : undefined;
    } },
  ],
}];
