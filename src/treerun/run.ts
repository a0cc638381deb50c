import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { traffic } from "../checkpoint/safetensors.js";
import { atomicFile, readJson, writeText } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { bestPoint, searchLambda } from "../evaluate/baselines.js";
import { gates, reachable } from "../merge/gates.js";
import { applyGate, makeTable, type Table } from "../merge/table.js";
import { figureSvg, svgToPng } from "../report/figure.js";
import { heatmapSpec } from "../report/heatmap.js";
import { treeSvg, type TreePicture } from "../report/tree.js";
import { chosenRaw, type TrainOptions } from "../train/loop.js";
import { zeroMoments } from "../train/adamw.js";
import { coefficientsIn, type FlatMerge } from "../tree/flatten.js";
import { localExecutor, type NodeJob } from "./executors.js";
import { refuseOthers, slurmExecutor } from "./slurm.js";
import { finishMerge } from "../run/finish.js";
import { openInputs, mergeContextOf, type Inputs } from "../inputs/open.js";
import { identityOf, trainRun } from "../run/merge.js";
import { resultRow } from "../report/rows.js";
import { prepareNode } from "./node.js";
import { folderName, isLinear, readResult, type NodeResult, type NodeRun } from "./node-file.js";
import type { MergeHooks, MergeOptions, MergeResult } from "../config/options.js";
import { loadState } from "../folder/state.js";
import { clearResults, copyModel, removeLeftovers } from "../folder/output.js";
import { planRun, type TreeOptions, type TreePlan } from "./plan.js";

const folderOf = ({ out }: TreePlan, id: string): string => join(out, "nodes", folderName(id));

/** Runs the nodes that are not done. Returns whether all are. */
async function runNodes(plan: TreePlan, tree: TreeOptions, hooks: MergeHooks): Promise<boolean> {
  // The whole tree's, whatever of it is done: jobs of another tree must not be taken for this one's.
  const key = plan.nodes.at(-1)!.identity;
  if (tree.executor === "slurm") await refuseOthers(plan.out, key);
  const jobs: NodeJob[] = [];
  for (const [i, node] of plan.nodes.entries()) {
    const path = await prepareNode(folderOf(plan, node.id), plan.files[i]!);
    if (await readResult(folderOf(plan, node.id), node.identity, node.tasks))
      hooks.note(`${node.id}: done before`);
    else
      jobs.push({
        id: node.id,
        level: node.level,
        path,
        after: node.children,
        memory: node.predicted.device + node.predicted.host,
        seconds: node.predicted.trainingSeconds,
      });
  }
  const execute =
    tree.executor === "slurm" ? slurmExecutor(plan.out, key, tree.slurmOptions) : localExecutor(tree.jobs);
  const all =
    jobs.length === 0 ||
    (await execute(jobs, {
      note: hooks.note,
      stopping: hooks.stopping,
      line: (id, text) => hooks.note(`[${id}] ${text}`),
    }));
  // A node whose tree was killed may outlive it by a moment, and leave a file half-written after the
  // next run tidied up.
  for (const { id } of plan.nodes) await removeLeftovers(folderOf(plan, id));
  if (!all) return false;
  for (const { id } of jobs) {
    const { identity, tasks } = plan.nodes.find((node) => node.id === id)!;
    if (!(await readResult(folderOf(plan, id), identity, tasks))) {
      throw new UserError(
        `node ${id} left no result${tree.executor === "slurm" ? `; its log is ${plan.out}/slurm-level-*.log` : ""}`,
      );
    }
  }
  return true;
}

/** The flattened tree as a table over the leaves. */
function tableOf({ vectors }: Inputs, flat: FlatMerge): Table {
  const order = vectors.experts.map((leaf) => flat.leaves.indexOf(leaf));
  return makeTable(
    vectors.layers.length,
    order.length,
    (row, column) => coefficientsIn(flat, vectors.layers[row]!.names[0]!)[order[column]!]!,
  );
}

async function picture(plan: TreePlan, results: ReadonlyMap<string, NodeResult>): Promise<void> {
  const mean = (values: readonly { accuracy: number }[]) =>
    values.reduce((sum, { accuracy }) => sum + accuracy, 0) / values.length;
  const nodes: TreePicture["nodes"][number][] = [];
  for (const { id, children, tasks, predicted } of plan.nodes) {
    const result = results.get(id)!;
    const path = join(folderOf(plan, id), "run.json");
    const run = existsSync(path) ? ((await readJson(path)) as NodeRun) : undefined;
    nodes.push({
      id,
      children,
      tasks: tasks.map((task) => ({
        task,
        before: result.before[task]!.accuracy,
        after: result.test[task]!.accuracy,
      })),
      before: mean(Object.values(result.before)),
      after: mean(Object.values(result.test)),
      planned: predicted.device,
      ...(run && {
        measured: { device: run.devicePeakBytes, process: run.peakMemoryBytes, seconds: run.seconds },
      }),
    });
  }
  const leaves = plan.tree.leaves.map((id) => {
    const parent = plan.nodes.find(({ children }) => children.includes(id))!;
    return { id, accuracy: results.get(parent.id)!.before[id]!.accuracy };
  });
  const svg = treeSvg({ title: `${plan.recipe.name}: a tree of merges`, leaves, nodes });
  await writeText(join(plan.out, "tree.svg"), svg);
  await atomicFile(join(plan.out, "tree.png"), (write) => write(svgToPng(svg)));
  const { tasks, whole, layers } = plan.similarity;
  const pairs = tasks.flatMap((_, i) => tasks.slice(i + 1).map((__, d) => [i, i + 1 + d] as const));
  const maps = {
    similarity: await figureSvg(
      heatmapSpec({
        title: "cosine similarity of the task vectors",
        tasks,
        layers: tasks,
        values: whole,
        legend: "cosine",
      }),
    ),
    "similarity-layers": await figureSvg(
      heatmapSpec({
        title: "cosine similarity of the task vectors, layer by layer",
        tasks: pairs.map(([i, j]) => `${tasks[i]!} · ${tasks[j]!}`),
        layers: layers.map(({ layer }) => layer),
        values: layers.map(({ cosines }) => pairs.map(([i, j]) => cosines[i]![j]!)),
        legend: "cosine",
      }),
    ),
  };
  for (const [name, map] of Object.entries(maps)) {
    await writeText(join(plan.out, `${name}.svg`), map);
    await atomicFile(join(plan.out, `${name}.png`), (write) => write(svgToPng(map)));
  }
}

/** Training on from a flattened tree. */
interface Polish {
  readonly out: string;
  readonly inputs: Inputs;
  readonly steps: number;
  /** The flattened table. */
  readonly start: Table;
  /** The root's identity. */
  readonly root: string;
}

async function polish(
  { out, inputs, steps, start, root }: Polish,
  options: MergeOptions,
  hooks: MergeHooks,
): Promise<Table | undefined> {
  const raw = {
    ...start,
    values: start.values.map((c) => gates[options.gate].inverse(reachable(options.gate, c))),
  };
  const moved = start.values.filter((c) => reachable(options.gate, c) !== c).length;
  if (moved)
    hooks.note(
      `${moved} of ${start.values.length} coefficients are out of the ${options.gate} gate's ` +
        "reach: polishing starts at the nearest it has",
    );
  const trainOptions: TrainOptions = { ...options, steps, init: 0, saveEvery: 10 };
  const identity = { ...identityOf(options, inputs), root, polish: steps };
  const resume = await loadState(out, identity).then(
    () => true,
    () => false,
  );
  const begin = { raw, moments: zeroMoments(raw.values.length) };
  const trained = await trainRun({ out, inputs, identity, resume }, begin, trainOptions, hooks);
  return trained.finished ? applyGate(chosenRaw(trained.state, trainOptions), options.gate) : undefined;
}

/** A finished tree's results.json, as far as it says which tree it is. */
const finishedTree = z.object({
  rows: z.array(resultRow),
  settings: z.object({ tree: z.object({ root: z.string(), polish: z.number() }) }),
});

/** What a tree's row is called in the results. */
function methodName({ polish: steps, nodeMethod }: TreeOptions): string {
  if (steps) return "hierarchical+polish";
  return nodeMethod === "supermerge" ? "hierarchical" : `hierarchical-${nodeMethod}`;
}

export interface TreeHooks extends MergeHooks {
  /** Before anything runs. */
  planned(plan: TreePlan): void;
  /** All nodes are done. */
  grown(): void;
}

/**
 * Merges in a tree (SuperMerge, hierarchical): groups of models are merged first, the merges are merged
 * again, each node trained on its own tasks' validation data alone. Done nodes are taken as they are,
 * so the same command goes on after any stop. Linear nodes make one exact table of the whole; the
 * merged model is written from the leaves.
 */
export async function mergeInTree(
  options: MergeOptions,
  tree: TreeOptions,
  hooks: TreeHooks,
): Promise<MergeResult> {
  const started = performance.now();
  if (options.treat !== "none")
    throw new UserError(
      `--treat ${options.treat}: task vectors are treated in flat merges only; in a tree each node would treat anew`,
    );
  if (!isLinear(tree.nodeMethod) && tree.polish)
    throw new UserError(
      `--polish ${tree.polish}: the tree cannot be flattened to start from, because what ` +
        `${tree.nodeMethod} makes is not one table of coefficients`,
    );
  const plan = await planRun(options, tree, hooks);
  const { out } = plan;
  hooks.planned(plan);
  const { synthetic } = plan;
  if (!(await runNodes(plan, tree, hooks))) return { out, rows: [], synthetic, finished: false };
  hooks.grown();
  const results = new Map<string, NodeResult>();
  for (const { id, identity, tasks } of plan.nodes)
    results.set(id, (await readResult(folderOf(plan, id), identity, tasks))!);
  await picture(plan, results);
  const root = plan.nodes.at(-1)!;
  const { flat } = results.get(root.id)!;
  const made = { root: root.identity, polish: tree.polish };
  const old = existsSync(join(out, "results.json"))
    ? finishedTree.safeParse(await readJson(join(out, "results.json")).catch(() => undefined))
    : undefined;
  if (
    old?.success &&
    old.data.settings.tree.root === made.root &&
    old.data.settings.tree.polish === made.polish
  ) {
    hooks.note(`${out} is finished already`);
    return { out, rows: old.data.rows, synthetic, finished: true };
  }
  // From here to the end the folder is not a finished merge.
  await clearResults(out);
  const inputs = await openInputs({ ...options, granularity: "tensor" }, plan.recipe, out, hooks);
  try {
    // Nobody asks for λ where no baseline is measured.
    const asked = options.baselines !== false;
    const search = asked
      ? await searchLambda(mergeContextOf(inputs), inputs.tasks, (done, of) =>
          hooks.progress("task arithmetic: search of λ", done, of),
        )
      : [];
    let table: Table | undefined;
    if (flat) {
      table = tableOf(inputs, flat);
      if (tree.polish) {
        const from: Polish = { out, inputs, steps: tree.polish, start: table, root: root.identity };
        table = await polish(from, options, hooks);
      }
      if (!table) return { out, rows: [], synthetic, finished: false };
    } else {
      hooks.note(
        `the tree is not one table: what ${tree.nodeMethod} makes no coefficients can say; ` +
          `${folderOf(plan, root.id)}/model is the result`,
      );
      await copyModel(join(folderOf(plan, root.id), "model"), out);
    }
    return await finishMerge(
      out,
      inputs,
      options,
      {
        raw: table,
        table,
        method: methodName(tree),
        title: `${plan.recipe.name}: the tree's coefficients, layers × experts`,
        search,
        lambda: asked ? bestPoint(search).lambda : NaN,
        settings: { tree: { ...made, nodes: plan.nodes.map(({ id }) => id) } },
        run: { seconds: { total: (performance.now() - started) / 1000 }, bytesRead: { total: traffic.read } },
      },
      hooks,
    );
  } finally {
    await inputs.dispose();
  }
}
