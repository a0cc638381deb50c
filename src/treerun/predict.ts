/** Where the nodes of a tree keep their task vectors, and how many models a node may merge. */
import type { MergeOptions } from "../config/options.js";
import { UserError } from "../errors.js";
import { planFile, type SavedPlan } from "../folder/tree-files.js";
import type { Inputs } from "../inputs/open.js";
import { planMemory, stepShape } from "../inputs/placement.js";
import {
  fitsBudget,
  requestFor,
  type PlacementRequest,
  type Prediction,
  type Rates,
} from "../plan/memory.js";
import type { TreeNode } from "../tree/plan.js";

/** Nodes that run side by side share the machine and the budget. */
export type SharedOptions = MergeOptions & { readonly share: number };

export interface NodePrediction {
  readonly predicted: Prediction & { /** All its steps. */ readonly trainingSeconds: number };
  readonly fitting: boolean;
  /** As they were measured: the next node is predicted with the same. */
  readonly rates: Rates;
}

/** Predicts a node: its columns on the device, the files of all leaves under it to be read. */
export async function predictNode(
  node: TreeNode,
  inputs: Inputs,
  options: SharedOptions,
  { request = options, rates }: { request?: PlacementRequest | undefined; rates?: Rates | undefined } = {},
): Promise<NodePrediction> {
  const tasks = inputs.tasks.filter(({ id }) => node.tasks.includes(id));
  const { family } = inputs.plan;
  const experts = node.children.length;
  const shape = {
    ...family,
    experts,
    coefficients: (family.coefficients / family.experts) * experts,
    files: node.tasks.length,
  };
  const { pack: packing, packBase: basePacking, density, memoryBudget, share } = options;
  const where = { packing, basePacking, density, request, memoryBudget, share, rates };
  const plan = await planMemory(shape, stepShape(tasks, options), inputs.engine, where);
  return {
    predicted: { ...plan.chosen, trainingSeconds: options.steps * plan.chosen.seconds },
    fitting: fitsBudget(plan.chosen, plan.budget),
    rates: plan.rates,
  };
}

/**
 * What an earlier run of the same tree decided: what `auto` finds depends on the memory that happens to
 * be free, and a node that was put elsewhere would be another one, to be run again.
 */
export async function planBefore(out: string, key: string): Promise<SavedPlan | undefined> {
  const saved = await planFile.readIfSound(out);
  return saved?.key === key ? saved : undefined;
}

/** Where an earlier run had a node. */
export function placedAt(before: SavedPlan | undefined, id: string): PlacementRequest | undefined {
  const found = before?.nodes.find((node) => node.id === id);
  return found && requestFor(found);
}

/** Whether a node fitsBudget; that no placement does is a no, anything else an error of its own. */
async function nodeFits(node: TreeNode, inputs: Inputs, options: SharedOptions): Promise<boolean> {
  try {
    return (await predictNode(node, inputs, options)).fitting;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}

/** The largest fan-in whose nodes all fit the budget where they are to live; 2 where no budget was named. */
export async function fanInOf(
  options: SharedOptions,
  asked: number | undefined,
  inputs: Inputs,
  before: SavedPlan | undefined,
): Promise<number> {
  if (before) return before.fanIn;
  if (asked !== undefined) return asked;
  if (options.memoryBudget === undefined) return 2;
  const ids = inputs.tasks.map(({ id }) => id);
  for (let fanIn = ids.length; fanIn > 2; fanIn--) {
    const node = { id: "", level: 1, tasks: ids, children: ids.slice(0, fanIn) };
    if (await nodeFits(node, inputs, options)) return fanIn;
  }
  return 2;
}
