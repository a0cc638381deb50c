/**
 * One training of coefficients on a random family, for memory.ts: reads what to do as JSON, prints what came out.
 *
 *   node dist/scripts/gpu/merge-once.js '{"family": …, "way": "flat", "budget": 2e9, "backend": "webgpu", "out": …}'
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { settingsSchema } from "../../src/config/schema.js";
import { plainTree } from "../../src/treerun/plan.js";
import { mergeTree, type TreeHooks } from "../../src/treerun/run.js";
import { trainMerge } from "../../src/run/merge.js";
import { makeFamily } from "./families.js";

export interface Order {
  readonly family: string;
  readonly folder: string;
  /** All experts at once; one after the other, two at a time; pairs of pairs. */
  readonly way: "flat" | "pairwise" | "tree";
  readonly budget: number;
  readonly backend: string;
  readonly out: string;
}

export interface Outcome {
  /** Of the largest node, in a tree: bytes. */
  readonly planned: number;
  /** Where its task vectors lived. */
  readonly placement: string;
  /** What the engine itself counted: bytes. */
  readonly counted: number;
  readonly seconds: number;
  /** Layer by layer, task by task. */
  readonly coefficients: number[];
}

const json = async <T>(path: string): Promise<T> => JSON.parse(await readFile(path, "utf8")) as T;

/** Groups that add one model after the other: [[[a, b], c], d]. */
const chain = ([first, ...others]: readonly string[]): unknown =>
  others.reduce<unknown>((group, task) => [group, task], first);

interface NodeRun {
  devicePeakBytes: number;
}

async function main(order: Order): Promise<Outcome> {
  const { base, experts, data } = await makeFamily(order.family, order.folder);
  const tasks = experts.map((expert) => expert.split("=")[0]!);
  const settings = settingsSchema.parse({
    tasks,
    base,
    experts,
    data,
    out: order.out,
    backend: order.backend,
    memoryBudget: order.budget,
    steps: 2,
    init: 0.3,
    batchSize: 4,
    valPerTask: 8,
    evalEvery: 100,
    maxLength: 64,
    holdout: 0,
  });
  const options = { ...settings, baselines: false };
  const hooks: TreeHooks = {
    note: (text) => void process.stderr.write(`${text}\n`),
    progress: () => {},
    step: () => {},
    stopping: () => false,
    planned: () => {},
    nodesDone: () => {},
  };
  const started = performance.now();
  let planned = 0;
  let counted = 0;
  let placement = "";
  if (order.way === "flat") {
    await trainMerge(options, hooks);
    const run = await json<{
      planned: { device: number; residency: string; blockwise: boolean };
      devicePeakBytes: number;
    }>(join(order.out, "run.json"));
    planned = run.planned.device;
    placement = `${run.planned.residency}${run.planned.blockwise ? ", by blocks" : ""}`;
    counted = run.devicePeakBytes;
  } else {
    const by =
      order.way === "pairwise" ? { file: "chain", groups: chain(tasks) as never } : ("order" as const);
    await mergeTree(options, { ...plainTree, by }, hooks);
    const nodes = join(order.out, "nodes");
    const results = await Promise.all(
      (await readdir(nodes)).map((id) => json<NodeRun>(join(nodes, id, "run.json"))),
    );
    counted = Math.max(...results.map(({ devicePeakBytes }) => devicePeakBytes));
    const plan = await json<{ nodes: { device: number }[] }>(join(order.out, "plan.json"));
    planned = Math.max(...plan.nodes.map(({ device }) => device));
    placement = `${results.length} nodes`;
  }
  const seconds = (performance.now() - started) / 1000;
  return { planned, placement, counted, seconds, coefficients: await coefficientsOf(order) };
}

/** Of a flat merge what the last step left, whichever step is kept; of a tree its coefficients. */
async function coefficientsOf({ way, out }: Order): Promise<number[]> {
  if (way === "flat") {
    const { raw } = await json<{ raw: { values: number[] } }>(join(out, "state.json"));
    return raw.values.map(Math.tanh);
  }
  const { entries } = await json<{ entries: { coefficient: number }[] }>(join(out, "coefficients.json"));
  return entries.map(({ coefficient }) => coefficient);
}

const outcome = await main(JSON.parse(process.argv[2]!) as Order);
process.stdout.write(`${JSON.stringify(outcome)}\n`);
process.exit(0);
