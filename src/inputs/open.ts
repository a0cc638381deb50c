import { rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { watchMemory, type EngineName } from "../backend/index.js";
import { inheriting, openFamily, openMember, type Family, type Member } from "../checkpoint/family.js";
import { UserError } from "../errors.js";
import type { MergeContext } from "../evaluate/baselines.js";
import type { PreparedTask } from "../evaluate/evaluate.js";
import { factoredFamily } from "../merge/factored.js";
import { columnOf, type Column } from "../merge/source.js";
import { loadTaskVectors, type TaskVectors } from "../merge/vectors.js";
import { withAdapters } from "../models/adapters.js";
import type { Head } from "../models/head.js";
import { rowTokens, type HeadNames, type Model } from "../models/types.js";
import type { PlacementRequest } from "../plan/memory.js";
import type { StepShape } from "../plan/shape.js";
import type { InputHash } from "../report/card.js";
import { usesLabels } from "../train/losses.js";
import { loadTasks, pickTasks, type Task } from "../tasks/registry.js";
import { adapterForm } from "../checkpoint/write-form.js";
import { checkFamily, checkHead, checkVocabulary } from "./check.js";
import { locate, shippedData, shippedFamily, type Locations } from "./locate.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import {
  buildModel,
  disposeHead,
  encoderFor,
  loadHead,
  prepareTask,
  readFamily,
  outputLayerOf,
  startFor,
} from "./prepare.js";
import { memoryText } from "../report/memory.js";
import { planMemory, shapeOf, type MemoryPlan } from "./placement.js";
import { openHead } from "./heads.js";
import { hashInputs } from "./record.js";
import { treatExperts } from "./treat.js";
import { hasTextTower, zeroShotHead } from "./zero-shot.js";
import { openOutput } from "../folder/output.js";

/** Everything a run reads, checked and on the device. */
export interface Inputs {
  readonly name: string;
  readonly locations: Locations;
  readonly data: string;
  readonly engine: EngineName;
  /** With what adapters add, standing beside its weights, where the experts are adapters. */
  readonly model: Model;
  /** Without: a model of the base's own tensors. */
  readonly plain: Model;
  readonly head: HeadNames | undefined;
  /** Every expert as a model: of an adapter, its products. */
  readonly family: Family;
  /** The columns of the table, seen so. */
  readonly columns: readonly Column[];
  /** Each task's head, as a checkpoint that holds one. */
  readonly heads: readonly Member[];
  readonly tasks: readonly PreparedTask[];
  readonly hashes: readonly InputHash[];
  readonly vectors: TaskVectors;
  /** Whether something was done to the task vectors: they are not the experts' own then. */
  readonly treated: boolean;
  readonly plan: MemoryPlan;
  dispose(): Promise<void>;
}

/** What an evaluation or a training takes of a run's inputs. */
export const mergeContextOf = ({ model, vectors, plan }: Inputs): MergeContext => ({
  model,
  vectors,
  blockwise: plan.chosen.blockwise,
  microBatch: plan.step.microBatch,
});

/** The most that one step can have to do: every task's longest examples in one batch. */
export function stepShape(
  tasks: readonly PreparedTask[],
  { batchSize, batchesPerStep, microBatch }: MergeOptions,
): StepShape {
  const rowsOf = (task: PreparedTask) =>
    task.validation.map(({ rows }) => rowTokens(...rows)).sort((a, b) => b - a);
  const tokens = tasks
    .map((task) =>
      rowsOf(task)
        .slice(0, batchSize * batchesPerStep)
        .reduce((a, b) => a + b, 0),
    )
    .reduce((a, b) => a + b, 0);
  const length = Math.max(...tasks.flatMap((task) => task.validation.map((example) => example.length)));
  return { tokens, microBatch, length };
}

/** What is merged, where it is not simply one expert a task. */
export interface Recipe {
  readonly locations: Locations;
  /** The columns of the table, from the opened sources (default: each source is one). */
  readonly columns?: ((sources: readonly Member[]) => Column[]) | undefined;
  /** Where its task vectors must live, whatever the options say (an earlier run chose it). */
  readonly request?: PlacementRequest | undefined;
  /** What the run is called. */
  readonly name: string;
}

/** The recipe of the options: every task's expert is a column. */
export async function recipeOf(options: MergeOptions): Promise<Recipe> {
  // An unknown task is said to be one before a folder for it is missed.
  pickTasks(await loadTasks(options.data ?? shippedData), options.tasks);
  const locations = await locate(options);
  return {
    locations,
    name: `${basename(options.family ?? (options.base ? locations.base : shippedFamily))}-${options.tasks.join("+")}`,
  };
}

/** How a family names its heads. */
interface HeadSource {
  readonly names: HeadNames | undefined;
  canonical(name: string): string;
  /** Starts the engine, where a head has to be computed. */
  start(): Promise<unknown>;
}

/** Every task's head, as a checkpoint that holds one, in the order of the tasks; closing is the caller's. */
async function openHeads(
  family: Family,
  { sources }: Locations,
  tasks: readonly Task[],
  { names, canonical, start }: HeadSource,
): Promise<{ heads: Member[]; close(): Promise<void> }> {
  const heads: Member[] = [];
  const opened: Member[] = [];
  for (const { id } of tasks) {
    const at = sources.findIndex((source) => source.tasks.includes(id));
    const merged = sources[at]!.merged && names !== undefined;
    if (merged) opened.push(await openHead(sources[at]!.folder, id, canonical));
    // A language model has no head: it is called after the task all the same.
    const own = merged ? opened.at(-1)! : { ...family.experts[at]!, label: id };
    // An expert that is a tower alone: the base's text tower makes it a head.
    const bare = names && !own.actual.has(names.weight) && hasTextTower(family.base);
    if (bare) await start();
    heads.push(
      bare
        ? await zeroShotHead(
            family.base,
            tasks.find((task) => task.id === id)!,
            names,
            canonical,
          )
        : own,
    );
  }
  return {
    heads,
    close: async () => void (await Promise.all(opened.map(({ checkpoint }) => checkpoint.close()))),
  };
}

/** Finds, opens and checks every input, headers before bytes; then starts the engine and loads. */
export async function openInputs(
  options: MergeOptions,
  recipe: Recipe,
  out: string,
  hooks: MergeHooks,
): Promise<Inputs> {
  const data = options.data ?? shippedData;
  const tasks = pickTasks(await loadTasks(data), options.tasks);
  const { locations, name } = recipe;
  const { canonical, head: headNames, outputLayers, inherited = [] } = await readFamily(locations.base);
  const opened = await openFamily(
    await openMember("base", locations.base, canonical),
    locations.sources.map(({ label, folder }) => ({ task: label, folder })),
    canonical,
  );
  const family = {
    ...opened,
    experts: opened.experts.map((expert) => inheriting(expert, opened.base, inherited, canonical)),
  };
  const heads: (Head | undefined)[] = [];
  const closers: (() => Promise<void>)[] = [family.close];
  const close = async () => {
    heads.forEach(disposeHead);
    for (const closer of closers) await closer();
  };
  try {
    const outputLayer = outputLayerOf(outputLayers, headNames, family, locations);
    const head = outputLayer === "score" ? undefined : headNames;
    const plain = buildModel(family.base, outputLayer);
    checkFamily(family, plain);
    // Said before any work is done.
    if (options.write === "adapter" && options.treat !== "none")
      throw new UserError("--write adapter: treated task vectors are no adapters; use --write model");
    if (options.write === "adapter") adapterForm(family.experts, "adapter");
    const factored = options.treat === "none" ? await factoredFamily(family, canonical) : undefined;
    const model = factored ? withAdapters(plain, factored.adapterModules) : plain;
    const headMembers = await openHeads(family, locations, tasks, {
      names: head,
      canonical,
      start: () => startFor(model, options.backend),
    });
    closers.push(headMembers.close);
    headMembers.heads.forEach((member, i) => checkHead(member, head, model, tasks[i]!));
    const encoder = await encoderFor(locations.base, model, options);
    checkVocabulary(locations.base, encoder, model);
    await openOutput(out, [locations.base, ...locations.sources.map(({ folder }) => folder)]);

    const engine = await startFor(model, options.backend);
    watchMemory().reset();
    hooks.note(
      `engine ${engine}; base ${locations.base}; experts ` +
        `${locations.sources.map(({ label }) => label).join(", ")}; output ${out}`,
    );
    const prepared = [];
    for (const [i, task] of tasks.entries()) {
      const expert = headMembers.heads[i]!;
      heads.push(await loadHead(expert, head));
      const ready = await prepareTask(task, heads[i], expert.checkpoint.config, encoder, {
        data,
        valPerTask: options.valPerTask,
        seed: options.seed,
        split: options.split,
      });
      const fewer =
        ready.validation.length < options.valPerTask
          ? `, fewer than --val-per-task ${options.valPerTask}`
          : "";
      hooks.note(
        `${task.id}: ${ready.validation.length} validation examples from ` +
          `${ready.sources.validation.name}${fewer}; ${ready.test.length} test examples from ` +
          ready.sources.test.name,
      );
      prepared.push(ready);
    }
    const free = prepared.find(({ kind }) => kind === "generate");
    if (free && !usesLabels(options.loss))
      throw new UserError(
        `${free.id}: --loss ${options.loss} looks at the classes or answers that a model chooses ` +
          "from, and a text to be said has none; use --loss cross-entropy",
      );
    const hashes = await hashInputs(family, locations.sources, data, prepared, encoder.prompts?.(tasks));
    let members = family.experts;
    if (options.treat !== "none") {
      const treatedMembers = await treatExperts(out, family, options, canonical, hooks);
      closers.push(async () => {
        for (const { checkpoint } of treatedMembers) await checkpoint.close();
        await rm(join(out, "treated"), { recursive: true, force: true });
      });
      members = treatedMembers;
    }
    const columnsOf = (sources: readonly Member[]) => recipe.columns?.(sources) ?? sources.map(columnOf);
    const { base, experts } = factored ?? { base: family.base, experts: members };
    const columns = columnsOf(experts);
    const plan = await planMemory(
      { ...shapeOf(model, base, columns.length), files: family.experts.length },
      stepShape(prepared, options),
      engine,
      {
        packing: options.pack,
        density: options.density,
        request: recipe.request ?? options,
        memoryBudget: options.memoryBudget,
      },
    );
    hooks.note(
      memoryText({
        ...plan,
        what: `memory of a step of ${plan.step.tokens} tokens, task vectors as ${options.pack}:`,
        rows: plan.predictions,
      }),
    );
    const vectors = await loadTaskVectors({ base, columns }, [...model.parameters.keys()], {
      granularity: options.granularity,
      packing: options.pack,
      density: options.density,
      residency: plan.chosen.residency,
      tables: model.tables,
      onTensor: (done, of) => hooks.progress("task vectors", done, of),
    });
    const dispose = async () => {
      vectors.dispose();
      await close();
    };
    if (vectors.layers.length === 0) {
      vectors.dispose();
      throw new UserError(`${locations.base}: no expert differs from the base; there is nothing to merge`);
    }
    hooks.note(
      `${vectors.layers.length} layers × ${columns.length} experts = ` +
        `${vectors.layers.length * columns.length} coefficients`,
    );
    return {
      name,
      locations,
      data,
      engine,
      model,
      plain,
      head,
      heads: headMembers.heads,
      family,
      columns: columnsOf(members),
      tasks: prepared,
      hashes,
      vectors,
      treated: members !== family.experts,
      plan,
      dispose,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
