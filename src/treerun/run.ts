import { join } from "node:path";
import { at, lookUp } from "../at.js";
import { traffic } from "../checkpoint/safetensors.js";
import type { MergeHooks, MergeOptions, MergeResult } from "../config/options.js";
import { UserError } from "../errors.js";
import { bestPoint, searchLambda } from "../evaluate/baselines.js";
import { clearResults, copyModel, removeLeftovers } from "../folder/output.js";
import { finishedTree, nodeFile, nodeFolder, nodeModel, type NodeResult } from "../folder/tree-files.js";
import { isLinear } from "./methods.js";
import { mergeContextOf, openInputs, type Inputs } from "../inputs/open.js";
import { gates, reachable, applyGate, makeTable, type Table } from "../merge/table.js";
import { finishMerge, searchProgress, type Finished, type MergeRun } from "../run/finish.js";
import { identityOf, stepsInAll, trainRun, type RunOptions } from "../run/merge.js";
import { zeroMoments } from "../train/adamw.js";
import { chosenRaw } from "../train/loop.js";
import { coefficientsIn, type FlatMerge } from "../tree/flatten.js";
import { localExecutor, type NodeJob } from "./executors.js";
import { readResult } from "./node-file.js";
import { hasState, prepareNode } from "./node.js";
import { writePictures } from "./pictures.js";
import { planRun, type PlannedNode, type TreeOptions, type TreePlan } from "./plan.js";
import { refuseOthers, slurmExecutor } from "./slurm.js";

/** The node that all others are merged into. */
const rootOf = ({ nodes }: TreePlan): PlannedNode => at(nodes, -1);

/** Nodes that are not done, as jobs; their folders are made ready. */
async function openJobs({ out, nodes }: TreePlan, note: MergeHooks["note"]): Promise<NodeJob[]> {
  const jobs: NodeJob[] = [];
  for (const { id, level, identity, tasks, children, predicted, file } of nodes) {
    const folder = nodeFolder(out, id);
    await prepareNode(folder, file);
    if (await readResult(folder, identity, tasks)) {
      note(`${id}: done before`);
      continue;
    }
    const memory = predicted.device + predicted.host;
    const seconds = predicted.trainingSeconds;
    jobs.push({ id, level, path: nodeFile.in(folder), after: children, memory, seconds });
  }
  return jobs;
}

/** Runs the nodes that are not done. Returns whether all are. */
async function runNodes(plan: TreePlan, tree: TreeOptions, hooks: MergeHooks): Promise<boolean> {
  const { out } = plan;
  // The whole tree's, whatever of it is done: jobs of another tree must not be taken for this one's.
  const key = rootOf(plan).identity;
  if (tree.executor === "slurm") await refuseOthers(out, key);
  const jobs = await openJobs(plan, hooks.note);
  const execute =
    tree.executor === "slurm" ? slurmExecutor(out, key, tree.slurmOptions) : localExecutor(tree.jobs);
  const all =
    jobs.length === 0 ||
    (await execute(jobs, {
      note: hooks.note,
      stopping: hooks.stopping,
      line: (id, text) => hooks.note(`[${id}] ${text}`),
    }));
  // A node whose tree was killed may outlive it by a moment, and leave a file half-written after the
  // next run tidied up.
  for (const { id } of plan.nodes) await removeLeftovers(nodeFolder(out, id));
  return all;
}

/** The results of all nodes. @throws UserError where one that was run left none */
async function resultsOf({ out, nodes }: TreePlan, tree: TreeOptions): Promise<Map<string, NodeResult>> {
  const results = new Map<string, NodeResult>();
  for (const { id, identity, tasks } of nodes) {
    const result = await readResult(nodeFolder(out, id), identity, tasks);
    if (!result) {
      const log = tree.executor === "slurm" ? `; its log is ${out}/slurm-level-*.log` : "";
      throw new UserError(`node ${id} left no result${log}`);
    }
    results.set(id, result);
  }
  return results;
}

/** The flattened tree as a table over the leaves. */
function flatTable({ vectors }: Inputs, flat: FlatMerge): Table {
  const order = vectors.experts.map((leaf) => flat.leaves.indexOf(leaf));
  return makeTable(vectors.layers.length, order.length, (row, column) =>
    at(coefficientsIn(flat, at(at(vectors.layers, row).names, 0)), at(order, column)),
  );
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

/** Trains the flattened table on; undefined where it was asked to stop. */
async function polish(
  { out, inputs, steps, start, root }: Polish,
  options: MergeOptions,
  hooks: MergeHooks,
): Promise<Table | undefined> {
  const { inverse } = gates[options.gate];
  const near = start.values.map((c) => reachable(options.gate, c));
  const moved = start.values.filter((c, i) => near[i] !== c).length;
  if (moved)
    hooks.note(
      `${moved} of ${start.values.length} coefficients are out of the ${options.gate} gate's ` +
        "reach: polishing starts at the nearest it has",
    );
  const raw = { ...start, values: near.map(inverse) };
  // There is no one place that it starts from.
  const inAll = stepsInAll(inputs, { ...options, steps });
  const trainOptions: RunOptions = { ...options, steps: inAll, init: 0, pull: 0, saveEvery: 10 };
  const identity = { ...identityOf(options, inputs), root, polish: steps };
  const resume = await hasState(out, identity);
  const begin = { raw, moments: zeroMoments(raw.values.length) };
  const trained = await trainRun({ out, inputs, identity, resume }, begin, trainOptions, hooks);
  return trained.finished ? applyGate(chosenRaw(trained.state, trainOptions), options.gate) : undefined;
}

/** What a tree's row is called in the results. */
function treeRowName({ polish: steps, nodeMethod }: TreeOptions): string {
  if (steps) return "hierarchical+polish";
  return nodeMethod === "supermerge" ? "hierarchical" : `hierarchical-${nodeMethod}`;
}

export interface TreeHooks extends MergeHooks {
  /** Before anything runs. */
  planned(plan: TreePlan): void;
  /** All nodes are done. */
  nodesDone(): void;
}

/** @throws UserError for settings that no tree can have */
function refuseSettings({ treat }: MergeOptions, tree: TreeOptions): void {
  if (treat !== "none")
    throw new UserError(
      `--treat ${treat}: task vectors are treated in flat merges only; in a tree each node would treat them again`,
    );
  if (!isLinear(tree.nodeMethod) && tree.polish)
    throw new UserError(
      `--polish ${tree.polish}: the tree cannot be flattened to start from, because what ` +
        `${tree.nodeMethod} makes is not one table of coefficients`,
    );
}

/**
 * The table that the model is written by. A tree whose method makes none has its root's model copied.
 * @returns what is written by coefficients has a table; `stopped` where polishing was asked to stop
 */
async function finalTable(
  plan: TreePlan,
  tree: TreeOptions,
  flat: FlatMerge | undefined,
  { inputs, options, hooks }: MergeRun,
): Promise<{ readonly table?: Table; readonly stopped: boolean }> {
  const { out } = plan;
  const root = rootOf(plan);
  if (!flat) {
    const model = join(nodeFolder(out, root.id), nodeModel);
    hooks.note(`${tree.nodeMethod} gives no table of coefficients: the result is the root's model, ${model}`);
    await copyModel(model, out);
    return { stopped: false };
  }
  const start = flatTable(inputs, flat);
  if (!tree.polish) return { table: start, stopped: false };
  const from: Polish = { out, inputs, steps: tree.polish, start, root: root.identity };
  const table = await polish(from, options, hooks);
  return table ? { table, stopped: false } : { stopped: true };
}

/**
 * Merges in a tree (SuperMerge, hierarchical): groups of models are merged first, the merges are merged
 * again, each node trained on its own tasks' validation data alone. Done nodes are taken as they are,
 * so the same command goes on after any stop. Linear nodes make one exact table of the whole; the
 * merged model is written from the leaves.
 */
export async function mergeTree(
  options: MergeOptions,
  tree: TreeOptions,
  hooks: TreeHooks,
): Promise<MergeResult> {
  const started = performance.now();
  refuseSettings(options, tree);
  const plan = await planRun(options, tree, hooks);
  const { out, synthetic } = plan;
  hooks.planned(plan);
  const stopped = { out, rows: [], synthetic, finished: false };
  if (!(await runNodes(plan, tree, hooks))) return stopped;
  hooks.nodesDone();
  const results = await resultsOf(plan, tree);
  await writePictures(plan, results);
  const root = rootOf(plan);
  const made = { root: root.identity, polish: tree.polish };
  const old = await finishedTree(out, made);
  if (old) {
    hooks.note(`${out} is finished already`);
    return { out, rows: old.rows, synthetic, finished: true };
  }
  // From here to the end the folder is not a finished merge.
  await clearResults(out);
  const inputs = await openInputs({ ...options, granularity: "tensor" }, plan.recipe, out, hooks);
  try {
    // λ is needed only for the baseline.
    const asked = options.baselines !== false;
    const search = asked
      ? await searchLambda(mergeContextOf(inputs), inputs.tasks, searchProgress(hooks))
      : [];
    const { flat } = lookUp(results, root.id);
    const final = await finalTable(plan, tree, flat, { out, inputs, options, hooks });
    if (final.stopped) return stopped;
    const finished: Finished = {
      raw: final.table,
      table: final.table,
      method: treeRowName(tree),
      title: `${plan.recipe.name}: the tree's coefficients, layers × experts`,
      search,
      lambda: asked ? bestPoint(search).lambda : NaN,
      settings: { tree: { ...made, nodes: plan.nodes.map(({ id }) => id) } },
      run: { seconds: { total: (performance.now() - started) / 1000 }, bytesRead: { total: traffic.read } },
    };
    return await finishMerge({ out, inputs, options, hooks }, finished);
  } finally {
    await inputs.dispose();
  }
}
