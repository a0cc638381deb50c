import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { at } from "../at.js";
import { digest } from "../checkpoint/files.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import { UserError } from "../errors.js";
import {
  finishedTree,
  planFile,
  similarityFile,
  treeFile,
  type NodeFile,
  type SavedPlan,
} from "../folder/tree-files.js";
import { finishedBefore, isFinished } from "../folder/output.js";
import type { NodeMethod } from "./methods.js";
import { recipeOf, type Recipe } from "../inputs/locate.js";
import { openInputs, type Inputs } from "../inputs/open.js";
import { recorded } from "../inputs/data.js";
import { version } from "../package.js";
import { requestFor, type PlacementRequest, type Rates } from "../plan/memory.js";
import {
  byOrder,
  bySimilarity,
  nestedTree,
  planTree,
  type Nested,
  type Tree,
  type TreeNode,
} from "../tree/plan.js";
import {
  fanInOf,
  placedAt,
  planBefore,
  predictNode,
  type NodePrediction,
  type SharedOptions,
} from "./predict.js";
import { similarities, type Similarities } from "./similarities.js";

export interface TreeOptions {
  /** Models a node merges at most; undefined: as many as the budget allows, 2 without one. */
  readonly fanIn?: number | undefined;
  /** By `similarity` of the task vectors, in the `order` of the tasks, or as a file says. */
  readonly by: "similarity" | "order" | { readonly file: string; readonly groups: Nested };
  readonly jobs: number;
  /** Steps of flat training from the flattened tree. */
  readonly polish: number;
  readonly keepNodes: boolean;
  readonly nodeMethod: NodeMethod;
  readonly executor: "local" | "slurm";
  /** Handed to sbatch. */
  readonly slurmOptions: readonly string[];
}

/** Pairs of the most similar, one node after the other in processes of this machine. */
export const plainTree: TreeOptions = {
  fanIn: 2,
  by: "similarity",
  jobs: 1,
  polish: 0,
  keepNodes: false,
  nodeMethod: "supermerge",
  executor: "local",
  slurmOptions: [],
};

export interface PlannedNode extends TreeNode {
  readonly identity: string;
  readonly predicted: NodePrediction["predicted"];
  /** What `train-merge node` is given. */
  readonly file: NodeFile;
}

export interface TreePlan {
  readonly out: string;
  readonly recipe: Recipe;
  readonly tree: Tree;
  readonly nodes: readonly PlannedNode[];
  readonly similarity: Similarities;
  readonly synthetic: boolean;
}

function groupsOf(
  by: TreeOptions["by"],
  tasks: readonly string[],
  fanIn: number,
  similarity: Similarities,
): Tree {
  if (by === "similarity") return planTree(tasks, fanIn, bySimilarity(similarity.whole));
  if (by === "order") return planTree(tasks, fanIn, byOrder);
  try {
    return nestedTree(tasks, by.groups);
  } catch (error) {
    if (error instanceof RangeError)
      throw new UserError(
        `${by.file}: ${error.message}; write groups as nested lists, such as [[rte, cb], copa]`,
      );
    throw error;
  }
}

/** A tree while it is planned. */
interface Planning {
  readonly given: MergeOptions;
  readonly options: SharedOptions;
  readonly tree: TreeOptions;
  readonly recipe: Recipe;
  readonly inputs: Inputs;
  readonly before: SavedPlan | undefined;
}

/** Settings that a node runs with, placement among them. */
function nodeSettings(
  { given, options, inputs }: Planning,
  node: TreeNode,
  predicted: NodePrediction["predicted"],
): Record<string, unknown> {
  const { taskWeights, data, tasks } = options;
  const request = requestFor(predicted);
  return {
    ...recorded(given, { ...inputs.plan, chosen: predicted }),
    ...request,
    data,
    taskWeights: taskWeights && node.tasks.map((task) => at(taskWeights, tasks.indexOf(task))),
  };
}

/**
 * What one node needs to run.
 * @param settled the nodes before it, its children among them
 */
function fileOf(
  planning: Planning,
  node: TreeNode,
  predicted: NodePrediction["predicted"],
  settled: readonly PlannedNode[],
): NodeFile {
  const { tree, recipe, inputs } = planning;
  const settings = nodeSettings(planning, node, predicted);
  const roles = new Set(["base", "data", ...node.tasks, ...node.tasks.map((task) => `${task}, data`)]);
  const hashes = inputs.hashes.filter(({ role }) => roles.has(role));
  const children = node.children.map((id) => ({
    id,
    identity: settled.find((other) => other.id === id)?.identity ?? null,
  }));
  const { nodeMethod: method, keepNodes } = tree;
  const { tasks: _, data: __, ...numbers } = settings;
  const identity = digest({ version, node: { ...node, children }, method, keepNodes, numbers, hashes });
  return {
    ...node,
    tasks: [...node.tasks],
    children,
    identity,
    method,
    keepNodes,
    hashes,
    settings,
    base: recipe.locations.base,
    sources: recipe.locations.sources
      .filter(({ label }) => node.tasks.includes(label))
      .map((source) => ({ ...source, tasks: [...source.tasks] })),
  };
}

/** Predicts every node, children before parents, and gives it its identity. */
async function planNodes(planning: Planning, grown: Tree): Promise<{ nodes: PlannedNode[]; rates?: Rates }> {
  const { inputs, options, before } = planning;
  const nodes: PlannedNode[] = [];
  let rates: Rates | undefined;
  for (const node of grown.nodes) {
    const prediction = await predictNode(node, inputs, options, {
      request: placedAt(before, node.id),
      rates,
    });
    ({ rates } = prediction);
    const file = fileOf(planning, node, prediction.predicted, nodes);
    nodes.push({ ...node, identity: file.identity, predicted: prediction.predicted, file });
  }
  return { nodes, ...(rates && { rates }) };
}

/**
 * Where the whole tree's leaves are at the end: they are merged a few times, measured and written; without
 * polishing nothing is trained, and they stay in their files, so that a tree's peak is that of its nodes.
 */
async function placeFinal(
  { options, tree, inputs, before }: Planning,
  grown: Tree,
  rates: Rates | undefined,
): Promise<NodePrediction["predicted"]> {
  const root = at(grown.nodes, -1);
  const unpolished = options.residency === "auto" && !tree.polish;
  const asked: PlacementRequest = {
    residency: unpolished ? "disk" : options.residency,
    blocks: options.blocks,
  };
  const request = before ? requestFor(before.final) : asked;
  return (await predictNode({ ...root, children: root.tasks }, inputs, options, { request, rates }))
    .predicted;
}

/** What the placements of a tree depend on: an earlier plan of the same key stands. */
function keyOf(
  options: SharedOptions,
  { fanIn, by, nodeMethod, polish }: TreeOptions,
  engine: string,
): string {
  const { tasks, out: _, overwrite: _o, ...asked } = options;
  return digest({ version, asked, tree: { fanIn, by, method: nodeMethod, polish }, tasks, engine });
}

/**
 * Plans a tree: reads all files (hashes, checks, similarities), groups the tasks, predicts each node,
 * and gives each the identity by which its result will be known again. Writes tree.json (the same for
 * the same inputs), similarity.json and plan.json (predictions for this machine).
 */
export async function planRun(given: MergeOptions, tree: TreeOptions, hooks: MergeHooks): Promise<TreePlan> {
  const options: SharedOptions = { ...given, share: tree.executor === "local" ? tree.jobs : 1 };
  if (options.pack === "sparse")
    throw new UserError(
      "--pack sparse is not for trees: each node would trim the merges below it again, and the tree " +
        "would no longer be one table of coefficients; use f32, bf16 or int8",
    );
  const recipe = await recipeOf(options);
  const out = options.out ?? join("merged", `${recipe.name}-tree`);
  if (options.tasks.length < 2) throw new UserError("a tree needs at least two tasks");
  const onDisk: MergeOptions = { ...options, residency: "disk", blocks: "off", pack: "f32", packBase: "f32" };
  // Whether a finished tree is this one is known when it is planned.
  const inputs = await openInputs({ ...onDisk, overwrite: true }, recipe, out, { ...hooks, note: () => {} });
  try {
    await mkdir(out, { recursive: true });
    const similarity = await similarities(out, inputs, hooks);
    const key = keyOf(options, tree, inputs.engine);
    const before = await planBefore(out, key);
    const planning: Planning = { given, options, tree, recipe, inputs, before };
    const fanIn = await fanInOf(options, tree.fanIn, inputs, before);
    const grown = groupsOf(tree.by, options.tasks, fanIn, similarity);
    const { nodes, rates } = await planNodes(planning, grown);
    const made = { root: at(nodes, -1).identity, polish: tree.polish };
    if (!given.overwrite && (await isFinished(out)) && !(await finishedTree(out, made)))
      throw finishedBefore(out);
    await similarityFile.write(out, similarity);
    await treeFile.write(out, {
      leaves: grown.leaves,
      nodes: nodes.map(({ id, level, tasks, children, identity }) => ({
        id,
        level,
        tasks,
        children,
        identity,
      })),
    });
    const { residency, blockwise } = await placeFinal(planning, grown, rates);
    await planFile.write(out, {
      key,
      fanIn,
      final: { residency, blockwise },
      nodes: nodes.map(({ id, predicted }) => ({ id, ...predicted })),
    });
    return {
      out,
      recipe: { ...recipe, request: requestFor({ residency, blockwise }) },
      tree: grown,
      nodes,
      similarity,
      synthetic: inputs.tasks.some((task) => task.synthetic),
    };
  } finally {
    await inputs.dispose();
  }
}
