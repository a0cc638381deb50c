import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { at, lookUp } from "../at.js";
import { watchMemory } from "../backend/index.js";
import type { Member } from "../checkpoint/family.js";
import { traffic } from "../checkpoint/safetensors.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import { UserError } from "../errors.js";
import { bestPoint, searchLambda } from "../evaluate/baselines.js";
import { evaluateTasks, type TaskScore } from "../evaluate/evaluate.js";
import { keepChatTemplate } from "../checkpoint/chat-template.js";
import { writeMerge } from "../folder/merge.js";
import { removeLeftovers, writeHead } from "../folder/output.js";
import { loadState } from "../folder/state.js";
import {
  nodeFile,
  nodeFinalFiles,
  nodeFolder,
  nodeModel,
  nodeResultFile,
  nodeRunFile,
  type NodeFile,
  type NodeResult,
} from "../folder/tree-files.js";
import { isLinear } from "./methods.js";
import type { Recipe, Source } from "../inputs/locate.js";
import { mergeContextOf, openInputs, type Inputs } from "../inputs/open.js";
import { columnOf, type Column } from "../merge/source.js";
import { applyGate, rowOf, type Table, constantTables } from "../merge/table.js";
import { findMethod } from "../methods/index.js";
import { resolveValues } from "../methods/values.js";
import { evaluateFolder } from "../run/evaluate.js";
import { writeResult } from "../run/finish.js";
import { searchAndTrain } from "../run/merge.js";
import { chosenRaw } from "../train/loop.js";
import { coefficientsIn, flatten, leafMerge, type FlatMerge } from "../tree/flatten.js";
import { childResult, readNode, readResult, treeOf } from "./node-file.js";

/**
 * A child as a column: an expert, a merge of several given by coefficients, or a merged model that was
 * written out.
 */
interface Child {
  readonly id: string;
  readonly sources: readonly Source[];
  /** Undefined for a leaf and for a model that was written out: a column of its own. */
  readonly flat?: FlatMerge | undefined;
  readonly result?: NodeResult | undefined;
}

/** The expert of a task, among a node's. */
function nodeExpert({ id, sources }: NodeFile, task: string): Source {
  const found = sources.find(({ label }) => label === task);
  if (!found) throw new UserError(`node ${id}: its file names no expert for ${task}`);
  return found;
}

async function childrenOf(folder: string, node: NodeFile): Promise<Child[]> {
  const children: Child[] = [];
  for (const { id, identity } of node.children) {
    if (identity === null) {
      children.push({ id, sources: [nodeExpert(node, id)] });
      continue;
    }
    const result = await childResult(folder, { id, identity });
    const { flat } = result;
    const written: Source = {
      label: id,
      folder: join(nodeFolder(treeOf(folder), id), nodeModel),
      tasks: Object.keys(result.test),
      merged: true,
    };
    const sources = flat?.leaves.map((leaf) => nodeExpert(node, leaf)) ?? [written];
    children.push({ id, result, flat, sources });
  }
  return children;
}

/**
 * Columns of a node: a child that is given by coefficients is the sum of its leaves' task vectors,
 * never written out.
 */
function nodeColumns(
  children: readonly Pick<Child, "id" | "sources" | "flat">[],
  members: readonly Member[],
): Column[] {
  let start = 0;
  return children.map(({ id, sources, flat }) => {
    const own = members.slice(start, (start += sources.length));
    if (!flat) return columnOf(at(own, 0));
    const terms = own.map((member, leaf) => ({
      member,
      coefficient: (name: string) => at(coefficientsIn(flat, name), leaf),
    }));
    return { label: id, terms };
  });
}

/** A table as tensor → row. */
const byTensor = ({ vectors }: Inputs, table: Table): Map<string, readonly number[]> =>
  new Map(
    vectors.layers.flatMap(({ names }, row) =>
      names.map((name) => [name, Array.from(rowOf(table, row))] as const),
    ),
  );

/** A node while it is run. */
interface RunningNode {
  /** nodes/<id>. */
  readonly folder: string;
  readonly node: NodeFile;
  readonly children: readonly Child[];
  readonly inputs: Inputs;
  readonly options: MergeOptions;
  readonly hooks: MergeHooks;
}

/** The table of a linear method, or undefined where training was asked to stop. */
async function nodeTable({ folder, node, inputs, options, hooks }: RunningNode): Promise<Table | undefined> {
  const { layers, experts } = inputs.vectors;
  if (node.method === "average") return constantTables.average(layers.length, experts.length);
  if (node.method === "task-arithmetic") {
    const search = await searchLambda(mergeContextOf(inputs), inputs.tasks, (done, of) =>
      hooks.progress("search of λ", done, of),
    );
    return constantTables.taskArithmetic(layers.length, experts.length, bestPoint(search).lambda);
  }
  const identity = { node: node.identity };
  // Another node's state, or a damaged one, is no reason to stop: this node begins anew.
  const resume = await hasState(folder, identity);
  // A node shows no baseline, so λ is looked for only where the coefficients start from it.
  const run = { out: folder, inputs, identity, resume };
  const trained = await searchAndTrain(run, { ...options, baselines: false }, hooks);
  return trained.finished ? applyGate(chosenRaw(trained.state, trained.options), options.gate) : undefined;
}

/** Whether a folder holds a state of this identity, to go on from. */
export async function hasState(
  folder: string,
  identity: Readonly<Record<string, unknown>>,
): Promise<boolean> {
  return loadState(folder, identity).then(
    () => true,
    () => false,
  );
}

/** Each task's score before the node: that of the child which it came with. */
async function scoresBefore({ children, inputs }: RunningNode): Promise<Record<string, TaskScore>> {
  const { vectors, tasks } = inputs;
  const before: Record<string, TaskScore> = {};
  for (const [c, { sources, result }] of children.entries()) {
    const own = tasks.filter(({ id }) => sources.some((source) => source.tasks.includes(id)));
    const table = constantTables.individual(vectors.layers.length, children.length, c);
    const scores = result?.test ?? (await scored(inputs, table, own));
    for (const { id } of own) before[id] = lookUp(new Map(Object.entries(scores)), id);
  }
  return before;
}

/** What a node made: its table over the leaves where its method has one, and its tasks' scores. */
interface NodeMerge {
  readonly flat?: FlatMerge | undefined;
  readonly test: Record<string, TaskScore>;
}

/** Merges by coefficients; undefined where training was asked to stop. */
async function mergeLinearly(running: RunningNode): Promise<NodeMerge | undefined> {
  const { folder, node, children, inputs, options } = running;
  const table = await nodeTable(running);
  if (!table) return undefined;
  const flat = flatten(
    children.map((child) => child.flat ?? leafMerge(child.id)),
    byTensor(inputs, table),
  );
  const test = await scored(inputs, table, inputs.tasks);
  if (node.keepNodes) {
    const model = join(folder, nodeModel);
    await writeResult(model, inputs, table, { ...options, write: "model" });
    for (const member of inputs.heads) await writeHead(model, member, inputs.head);
  }
  return { flat, test };
}

/** Merges with a method that no coefficients can say: the model is written, and measured from its files. */
async function mergeByMethod({
  folder,
  node,
  children,
  inputs,
  options,
  hooks,
}: RunningNode): Promise<NodeMerge> {
  const { family, head, heads, data, plan } = inputs;
  const model = join(folder, nodeModel);
  const method = findMethod(node.method);
  await writeMerge(
    model,
    {
      ...options,
      method,
      values: resolveValues(method, { seed: options.seed }, children.length),
      base: family.base,
      inputs: family.experts,
      reads: inputs.plain.parameters,
      heads: { members: heads, names: head },
    },
    hooks,
  );
  await keepChatTemplate(model, inputs.chatTemplate);
  const { scores } = await evaluateFolder({ ...options, folder: model, data, placement: plan.chosen });
  return { test: scores };
}

/**
 * Runs one node of a tree: trains on its own tasks' validation data, measures on their test data, writes its result.
 * A state that a stopped run left is gone on from; a result with the node's identity is taken as it is.
 * @param folder nodes/<id>
 * @param parse checks the settings that the node's file holds
 * @returns whether it is done; false where it was asked to stop
 * @throws UserError where its inputs are not those that the tree was planned with
 */
export async function runNode(
  folder: string,
  parse: (settings: Record<string, unknown>) => Promise<Omit<MergeOptions, "resume">>,
  hooks: MergeHooks,
): Promise<boolean> {
  const started = performance.now();
  const node = await readNode(folder);
  if (await readResult(folder, node.identity, node.tasks)) return true;
  await removeLeftovers(folder);
  const children = await childrenOf(folder, node);
  const options = await parse({ ...node.settings, tasks: node.tasks });
  const recipe: Recipe = {
    name: node.id,
    locations: { base: node.base, sources: children.flatMap(({ sources }) => sources) },
    columns: (members) => nodeColumns(children, members),
  };
  // What it is and takes was said in the plan.
  const inputs = await openInputs(options, recipe, folder, { ...hooks, note: () => {} });
  try {
    checkHashes(node, inputs);
    const running: RunningNode = { folder, node, children, inputs, options, hooks };
    const before = await scoresBefore(running);
    const merge = isLinear(node.method) ? await mergeLinearly(running) : await mergeByMethod(running);
    if (!merge) return false;
    const { flat, test } = merge;
    await nodeRunFile.write(folder, {
      seconds: (performance.now() - started) / 1000,
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
      devicePeakBytes: watchMemory().peak(),
      bytesRead: traffic.read,
      planned: inputs.plan.chosen,
    });
    await nodeResultFile.write(folder, {
      identity: node.identity,
      id: node.id,
      method: node.method,
      ...(flat && { flat }),
      test,
      before,
    });
    return true;
  } finally {
    await inputs.dispose();
  }
}

/** Models and data must be what the tree was planned with: a job may have waited in a queue for long. */
function checkHashes({ id, hashes }: NodeFile, inputs: Inputs): void {
  const planned = new Map(hashes.map(({ role, file, sha256 }) => [`${role}/${file}`, sha256]));
  const changed = inputs.hashes.find(
    ({ role, file, sha256 }) => (planned.get(`${role}/${file}`) ?? sha256) !== sha256,
  );
  if (changed)
    throw new UserError(
      `node ${id}: ${changed.file} (${changed.role}) is not what the tree was planned with; ` +
        `run \`train-merge tree\` again`,
    );
}

async function scored(
  inputs: Inputs,
  table: Table,
  tasks: Inputs["tasks"],
): Promise<Record<string, TaskScore>> {
  const scores = await evaluateTasks({ ...mergeContextOf(inputs), table }, tasks, "test");
  return Object.fromEntries(scores.map((score, i) => [at(tasks, i).id, score]));
}

/** Writes a node's folder so that `train-merge node FILE` can run it. What another tree left there goes. */
export async function prepareNode(folder: string, node: NodeFile): Promise<void> {
  await mkdir(folder, { recursive: true });
  const old = await nodeFile.readIfSound(folder);
  if (old?.identity !== node.identity) {
    for (const file of nodeFinalFiles) await rm(join(folder, file), { recursive: true, force: true });
  }
  // Always: folders may have moved, which changes nothing that the result depends on.
  await nodeFile.write(folder, node);
}
