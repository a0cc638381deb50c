import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { readJson, writeText, digest } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { gramMatrices } from "../merge/gram.js";
import { loadTaskVectors } from "../merge/vectors.js";
import { residencies } from "../merge/residency.js";
import { version } from "../package.js";
import {
  fitsBudget,
  type Placement,
  type Prediction,
  type Rates,
  type PlacementRequest,
} from "../plan/memory.js";
import {
  bySimilarity,
  byOrder,
  nestedTree,
  planTree,
  type Nested,
  type Tree,
  type TreeNode,
} from "../tree/plan.js";
import { cosines, totalGram, type Similarity } from "../tree/similarity.js";
import { openInputs, recipeOf, stepShape, type Inputs, type Recipe } from "../inputs/open.js";
import { type NodeFile, type NodeMethod } from "./node-file.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import { planMemory } from "../inputs/placement.js";
import { recorded } from "../inputs/record.js";

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

export interface PlannedNode extends TreeNode {
  readonly identity: string;
  readonly predicted: Prediction & { /** All its steps. */ readonly trainingSeconds: number };
}

/** Similarities as nodes are grouped by, and as the report shows them. */
export interface Similarities {
  readonly tasks: readonly string[];
  readonly whole: Similarity;
  readonly layers: readonly { readonly layer: string; readonly cosines: Similarity }[];
}

export interface TreePlan {
  readonly out: string;
  readonly recipe: Recipe;
  readonly tree: Tree;
  readonly nodes: readonly PlannedNode[];
  readonly files: readonly NodeFile[];
  readonly similarity: Similarities;
  readonly synthetic: boolean;
}

const matrix = z.array(z.array(z.number()));
const savedSimilarities = z.object({
  identity: z.string(),
  tasks: z.array(z.string()),
  whole: matrix,
  layers: z.array(z.object({ layer: z.string(), cosines: matrix })),
});

/** Similarities of all task vectors, from a file of an earlier run with the same inputs, or in one pass. */
async function similarities(path: string, inputs: Inputs, hooks: MergeHooks): Promise<Similarities> {
  const identity = digest({
    version,
    hashes: inputs.hashes,
    tasks: inputs.vectors.experts,
    layers: inputs.vectors.layers.map(({ id }) => id),
  });
  const saved = existsSync(path)
    ? savedSimilarities.safeParse(await readJson(path).catch(() => undefined))
    : undefined;
  if (saved?.success && saved.data.identity === identity && saved.data.whole.length === inputs.tasks.length)
    return saved.data;
  // What adapters are beside the weights says nothing of how alike they are: their products do.
  const { family, columns, plain, model, vectors } = inputs;
  const products =
    model === plain
      ? undefined
      : await loadTaskVectors({ base: family.base, columns }, [...plain.parameters.keys()], {
          residency: "disk",
          tables: plain.tables,
        });
  const grams = await gramMatrices(products ?? vectors, (done, of) =>
    hooks.progress("similarity of task vectors", done, of),
  );
  products?.dispose();
  const found: Similarities = {
    tasks: inputs.vectors.experts,
    whole: cosines(totalGram(grams)),
    layers: grams.map(({ layer, gram }) => ({ layer, cosines: cosines(gram) })),
  };
  await writeText(path, { identity, ...found });
  return found;
}

/** Nodes that run side by side share the machine and the budget. */
type SharedOptions = MergeOptions & { readonly share: number };

/** Predicts a node: its columns on the device, the files of all leaves under it to be read. */
async function predictNode(
  node: TreeNode,
  inputs: Inputs,
  options: SharedOptions,
  rates?: Rates,
  request: PlacementRequest = options,
): Promise<{ predicted: PlannedNode["predicted"]; fitting: boolean; rates: Rates }> {
  const tasks = inputs.tasks.filter(({ id }) => node.tasks.includes(id));
  const { family } = inputs.plan;
  const experts = node.children.length;
  const shape = {
    ...family,
    experts,
    coefficients: (family.coefficients / family.experts) * experts,
    files: node.tasks.length,
  };
  const plan = await planMemory(
    shape,
    stepShape(tasks, options),
    inputs.engine,
    {
      packing: options.pack,
      density: options.density,
      request,
      memoryBudget: options.memoryBudget,
      share: options.share,
    },
    rates,
  );
  return {
    predicted: { ...plan.chosen, trainingSeconds: options.steps * plan.chosen.seconds },
    fitting: fitsBudget(plan.chosen, plan.budget),
    rates: plan.rates,
  };
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

const placement = z.object({ residency: z.enum(residencies), blockwise: z.boolean() });
const savedPlan = z.object({
  key: z.string(),
  fanIn: z.number().int().min(2),
  nodes: z.array(placement.extend({ id: z.string() })),
  final: placement,
});
type SavedPlan = z.infer<typeof savedPlan>;

/**
 * What an earlier run of the same tree decided: what `auto` finds depends on the memory that happens to
 * be free, and a node that was put elsewhere would be another one, to be run again.
 */
async function planBefore(path: string, key: string): Promise<SavedPlan | undefined> {
  const parsed = existsSync(path)
    ? savedPlan.safeParse(await readJson(path).catch(() => undefined))
    : undefined;
  return parsed?.success && parsed.data.key === key ? parsed.data : undefined;
}

function placedAt(before: SavedPlan | undefined, id: string): PlacementRequest | undefined {
  const found = before?.nodes.find((node) => node.id === id);
  return found && named(found);
}

const named = ({ residency, blockwise }: Placement): PlacementRequest => ({
  residency,
  blocks: blockwise ? "on" : "off",
});

/** Nothing fits: false. Anything else is an error of its own. */
function isUserError(error: unknown): false {
  if (error instanceof UserError) return false;
  throw error;
}

/** The largest fan-in whose nodes all fit the budget where they are to live; 2 where no budget was named. */
async function fanInOf(
  options: SharedOptions,
  tree: TreeOptions,
  inputs: Inputs,
  before: SavedPlan | undefined,
): Promise<number> {
  if (before) return before.fanIn;
  if (tree.fanIn !== undefined) return tree.fanIn;
  if (options.memoryBudget === undefined) return 2;
  for (let fanIn = inputs.tasks.length; fanIn > 2; fanIn--) {
    const ids = inputs.tasks.map(({ id }) => id);
    const node = { id: "", level: 1, tasks: ids, children: ids.slice(0, fanIn) };
    if (await predictNode(node, inputs, options).then(({ fitting }) => fitting, isUserError)) return fanIn;
  }
  return 2;
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
      "--pack sparse is not for trees: each node would trim the merges below it anew, and the " +
        "tree would be no table of its leaves; f32, bf16 and int8 are",
    );
  const recipe = await recipeOf(options);
  const out = options.out ?? join("merged", `${recipe.name}-tree`);
  if (options.tasks.length < 2) throw new UserError("a tree needs at least two tasks");
  const inputs = await openInputs(
    { ...options, residency: "disk", blocks: "off", pack: "f32" },
    recipe,
    out,
    { ...hooks, note: () => {} },
  );
  try {
    await mkdir(out, { recursive: true });
    const similarity = await similarities(join(out, "similarity.json"), inputs, hooks);
    const { tasks: _t, out: _o, ...asked } = options;
    const key = digest({
      version,
      asked,
      tree: { fanIn: tree.fanIn, by: tree.by, method: tree.nodeMethod, polish: tree.polish },
      tasks: options.tasks,
      engine: inputs.engine,
    });
    const before = await planBefore(join(out, "plan.json"), key);
    const fanIn = await fanInOf(options, tree, inputs, before);
    const grown = groupsOf(tree.by, options.tasks, fanIn, similarity);
    const nodes: PlannedNode[] = [];
    const files: NodeFile[] = [];
    let rates: Rates | undefined;
    for (const node of grown.nodes) {
      const prediction = await predictNode(node, inputs, options, rates, placedAt(before, node.id));
      ({ rates } = prediction);
      const { residency, blockwise } = prediction.predicted;
      const settings = {
        ...recorded(given, { ...inputs.plan, chosen: prediction.predicted }),
        residency,
        blocks: blockwise ? "on" : "off",
        data: options.data,
        taskWeights:
          options.taskWeights && node.tasks.map((task) => options.taskWeights![options.tasks.indexOf(task)]!),
      };
      const hashes = inputs.hashes.filter(
        ({ role }) =>
          role === "base" ||
          role === "data" ||
          node.tasks.some((task) => role === task || role === `${task}, data`),
      );
      const children = node.children.map((id) => ({
        id,
        identity: nodes.find((other) => other.id === id)?.identity ?? null,
      }));
      const { tasks: _, data: __, ...numbers } = settings as Record<string, unknown>;
      const identity = digest({
        version,
        node: { ...node, children },
        method: tree.nodeMethod,
        keepNodes: tree.keepNodes,
        numbers,
        hashes,
      });
      nodes.push({ ...node, identity, predicted: prediction.predicted });
      files.push({
        ...node,
        tasks: [...node.tasks],
        children,
        identity,
        method: tree.nodeMethod,
        keepNodes: tree.keepNodes,
        hashes,
        settings,
        base: recipe.locations.base,
        sources: recipe.locations.sources
          .filter(({ label }) => node.tasks.includes(label))
          .map((source) => ({ ...source, tasks: [...source.tasks] })),
      });
    }
    await writeText(join(out, "tree.json"), {
      leaves: grown.leaves,
      nodes: nodes.map(({ id, level, tasks, children, identity }) => ({
        id,
        level,
        tasks,
        children,
        identity,
      })),
    });
    // All leaves are merged a few times, measured and written; without polishing nothing is trained,
    // and they stay in their files, so that a tree's peak is that of its nodes.
    const request: PlacementRequest = before
      ? named(before.final)
      : {
          residency: options.residency === "auto" && !tree.polish ? "disk" : options.residency,
          blocks: options.blocks,
        };
    const root = grown.nodes.at(-1)!;
    const { residency, blockwise } = (
      await predictNode({ ...root, children: root.tasks }, inputs, options, rates, request)
    ).predicted;
    await writeText(join(out, "plan.json"), {
      key,
      fanIn,
      final: { residency, blockwise },
      nodes: nodes.map(({ id, predicted }) => ({ id, ...predicted })),
    });
    return {
      out,
      recipe: { ...recipe, request: named({ residency, blockwise }) },
      tree: grown,
      nodes,
      files,
      similarity,
      synthetic: inputs.tasks.some((task) => task.synthetic),
    };
  } finally {
    await inputs.dispose();
  }
}
