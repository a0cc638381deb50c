import { existsSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { watchMemory } from "../backend/index.js";
import type { Member } from "../checkpoint/family.js";
import { readJson, writeText } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { traffic } from "../checkpoint/safetensors.js";
import { bestPoint, searchLambda } from "../evaluate/baselines.js";
import { evaluateTasks, type TaskScore } from "../evaluate/evaluate.js";
import { columnOf, type Column } from "../merge/source.js";
import { applyGate, rowOf, type Table } from "../merge/table.js";
import { constantTables } from "../methods/constant.js";
import { chosenRaw } from "../train/loop.js";
import { coefficientsIn, flatten, leafMerge, type FlatMerge } from "../tree/flatten.js";
import { openInputs, mergeContextOf, type Inputs, type Recipe } from "../inputs/open.js";
import type { Source } from "../inputs/locate.js";
import { searchAndTrain } from "../run/merge.js";
import {
  childResult,
  folderName,
  isLinear,
  readNodeFile,
  readResult,
  type NodeFile,
  type NodeResult,
  type NodeRun,
} from "./node-file.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import { loadState } from "../folder/state.js";
import { writeMerge } from "../folder/merge.js";
import { evaluateFolder } from "../run/evaluate.js";
import { methods } from "../methods/index.js";
import { resolveValues } from "../methods/values.js";
import { removeLeftovers, writeHead } from "../folder/output.js";
import { writeResult } from "../mergers/write-result.js";

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

async function childrenOf(path: string, node: NodeFile): Promise<Child[]> {
  const children: Child[] = [];
  for (const child of node.children) {
    if (child.identity === null) {
      children.push({ id: child.id, sources: node.sources.filter(({ label }) => label === child.id) });
      continue;
    }
    const result = await childResult(path, child);
    const tasks = Object.keys(result.test);
    const written: Source = {
      label: child.id,
      folder: join(dirname(dirname(path)), folderName(child.id), "model"),
      tasks,
      merged: true,
    };
    children.push({
      id: child.id,
      result,
      flat: result.flat,
      sources: result.flat
        ? result.flat.leaves.map((leaf) => node.sources.find(({ label }) => label === leaf)!)
        : [written],
    });
  }
  return children;
}

/**
 * Columns of a node: a child that is given by coefficients is the sum of its leaves' task vectors,
 * never written out.
 */
export function columnsOf(
  children: readonly Pick<Child, "id" | "sources" | "flat">[],
  members: readonly Member[],
): Column[] {
  let at = 0;
  return children.map(({ id, sources, flat }) => {
    const mine = members.slice(at, (at += sources.length));
    if (!flat) return columnOf(mine[0]!);
    return {
      label: id,
      terms: mine.map((member, leaf) => ({
        member,
        coefficient: (name: string) => coefficientsIn(flat, name)[leaf]!,
      })),
    };
  });
}

/** A table as tensor → row. */
const byTensor = ({ vectors }: Inputs, table: Table): Map<string, readonly number[]> =>
  new Map(
    vectors.layers.flatMap(({ names }, row) =>
      names.map((name) => [name, Array.from(rowOf(table, row))] as const),
    ),
  );

/** The table of a linear method, or undefined where training was asked to stop. */
async function nodeTable(
  folder: string,
  node: NodeFile,
  inputs: Inputs,
  options: MergeOptions,
  hooks: MergeHooks,
): Promise<Table | undefined> {
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
  const resume = await loadState(folder, identity).then(
    () => true,
    () => false,
  );
  // A node shows no baseline, so λ is looked for only where the coefficients start from it.
  const run = { out: folder, inputs, identity, resume };
  const trained = await searchAndTrain(run, { ...options, baselines: false }, hooks);
  return trained.finished ? applyGate(chosenRaw(trained.state, trained.options), options.gate) : undefined;
}

/**
 * Runs one node of a tree: trains on its own tasks' validation data, measures on their test data, writes its result.
 * A state that a stopped run left is gone on from; a result with the node's identity is taken as it is.
 * @param parse checks the settings that the node's file holds
 * @returns whether it is done; false where it was asked to stop
 * @throws UserError where its inputs are not those that the tree was planned with
 */
export async function runNode(
  path: string,
  parse: (settings: Record<string, unknown>) => Promise<Omit<MergeOptions, "resume">>,
  hooks: MergeHooks,
): Promise<boolean> {
  const started = performance.now();
  const node = await readNodeFile(path);
  const folder = dirname(path);
  if (await readResult(folder, node.identity, node.tasks)) return true;
  await removeLeftovers(folder);
  const children = await childrenOf(path, node);
  const options = await parse({ ...node.settings, tasks: node.tasks });
  const recipe: Recipe = {
    name: node.id,
    locations: { base: node.base, sources: children.flatMap(({ sources }) => sources) },
    columns: (members) => columnsOf(children, members),
  };
  // What it is and takes was said in the plan.
  const inputs = await openInputs(options, recipe, folder, { ...hooks, note: () => {} });
  try {
    checkHashes(node, inputs);
    const { vectors, tasks, family, head, heads } = inputs;
    const { length: n } = vectors.layers;
    const k = children.length;
    const before: Record<string, TaskScore> = {};
    for (const [c, child] of children.entries()) {
      const mine = tasks.filter(({ id }) => child.sources.some((source) => source.tasks.includes(id)));
      if (child.result) for (const { id } of mine) before[id] = child.result.test[id]!;
      else Object.assign(before, await scored(inputs, constantTables.individual(n, k, c), mine));
    }
    let flat: FlatMerge | undefined;
    let test: Record<string, TaskScore>;
    if (isLinear(node.method)) {
      const table = await nodeTable(folder, node, inputs, options, hooks);
      if (!table) return false;
      flat = flatten(
        children.map((child) => child.flat ?? leafMerge(child.id)),
        byTensor(inputs, table),
      );
      test = await scored(inputs, table, tasks);
      if (node.keepNodes) {
        await writeResult(join(folder, "model"), inputs, table, { ...options, write: "model" });
        for (const member of heads) await writeHead(join(folder, "model"), member, head);
      }
    } else {
      const model = join(folder, "model");
      const method = methods.find(({ name }) => name === node.method)!;
      await writeMerge(
        model,
        {
          ...options,
          method,
          values: resolveValues(method, { seed: options.seed }, k),
          base: family.base,
          inputs: family.experts,
          heads: { members: heads, names: head },
        },
        hooks,
      );
      test = (
        await evaluateFolder({ ...options, folder: model, data: inputs.data, placement: inputs.plan.chosen })
      ).scores;
    }
    const run: NodeRun = {
      seconds: (performance.now() - started) / 1000,
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
      devicePeakBytes: watchMemory().peak(),
      bytesRead: traffic.read,
    };
    await writeText(join(folder, "run.json"), { ...run, planned: inputs.plan.chosen });
    await writeText(join(folder, "result.json"), {
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
  return Object.fromEntries(tasks.map(({ id }, i) => [id, scores[i]!]));
}

/** Writes a node's folder so that `train-merge node FILE` can run it. What another tree left there goes. */
export async function prepareNode(folder: string, node: NodeFile): Promise<string> {
  await mkdir(folder, { recursive: true });
  const path = join(folder, "node.json");
  const old = existsSync(path)
    ? ((await readJson(path).catch(() => undefined)) as { identity?: string } | undefined)
    : undefined;
  if (old?.identity !== node.identity) {
    for (const file of ["result.json", "run.json", "state.json", "training.jsonl", "model"])
      await rm(join(folder, file), { recursive: true, force: true });
  }
  // Always: places may have moved, which changes nothing that the result depends on.
  await writeText(path, node);
  return path;
}
