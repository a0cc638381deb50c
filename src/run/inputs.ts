import { basename } from "node:path";
import { watchMemory, type EngineName } from "../backend/index.js";
import { openFamily, openMember, type Family } from "../checkpoint/family.js";
import { UserError } from "../errors.js";
import type { PreparedTask } from "../evaluate/evaluate.js";
import { columnOf } from "../merge/source.js";
import { loadTaskVectors, type TaskVectors } from "../merge/vectors.js";
import type { Head } from "../models/index.js";
import type { Model, ModelFamily } from "../models/types.js";
import type { StepShape } from "../plan/shape.js";
import type { InputHash } from "../report/card.js";
import { loadTasks, pickTasks } from "../tasks/registry.js";
import { loadTokenizer } from "../tasks/tokenize.js";
import { checkFamily, checkHead, checkVocabulary } from "./check.js";
import { locate, shippedData, shippedFamily, type Places } from "./locate.js";
import type { MergeHooks, MergeOptions } from "./options.js";
import { disposeHead, loadHead, prepareTask, readModel, startFor } from "./prepare.js";
import { memoryText } from "../report/memory.js";
import { planMemory, shapeOf, type MemoryPlan } from "./place.js";
import { hashInputs } from "./record.js";
import { openOutput } from "./write.js";

/** Everything a run reads, checked and on the device. */
export interface Inputs {
  readonly name: string;
  readonly places: Places;
  readonly data: string;
  readonly engine: EngineName;
  readonly model: Model;
  readonly head: ModelFamily["head"];
  readonly family: Family;
  readonly tasks: readonly PreparedTask[];
  readonly hashes: readonly InputHash[];
  readonly vectors: TaskVectors;
  readonly plan: MemoryPlan;
  dispose(): Promise<void>;
}

/** The most that one step can have to do: every task's longest examples in one batch. */
function stepShape(tasks: readonly PreparedTask[], { batchSize, microBatch }: MergeOptions): StepShape {
  const rowsOf = (task: PreparedTask) => task.validation.map(({ rows }) => rows.reduce((sum, { ids }) => sum + ids.length, 0)).sort((a, b) => b - a);
  const tokens = tasks.map((task) => rowsOf(task).slice(0, batchSize).reduce((a, b) => a + b, 0)).reduce((a, b) => a + b, 0);
  const length = Math.max(...tasks.flatMap((task) => task.validation.map((example) => example.length)));
  return { tokens, microBatch, length };
}

/** Finds, opens and checks every input, headers before bytes; then starts the engine and loads. */
export async function openInputs(options: MergeOptions, out: (name: string) => string, hooks: MergeHooks): Promise<Inputs> {
  const data = options.data ?? shippedData;
  const tasks = pickTasks(await loadTasks(data), options.tasks);
  const places = await locate(options);
  const { family: { canonical, head }, model } = await readModel(places.base);
  const name = `${basename(options.family ?? (options.base ? places.base : shippedFamily))}-${options.tasks.join("+")}`;
  const family = await openFamily(await openMember("base", places.base, canonical), places.experts, canonical);
  const heads: Head[] = [];
  try {
    checkFamily(family, model);
    family.experts.forEach((expert, i) => checkHead(expert, head, model, tasks[i]!));
    const encoder = await loadTokenizer(places.base, Math.min(options.maxLength, model.maxLength));
    checkVocabulary(places.base, encoder, model);
    await openOutput(out(name), [places.base, ...places.experts.map(({ folder }) => folder)]);

    const engine = await startFor(model, options.backend);
    watchMemory().reset();
    hooks.note(`engine ${engine}; base ${places.base}; experts ${options.tasks.join(", ")}; output ${out(name)}`);
    const prepared = [];
    for (const [i, task] of tasks.entries()) {
      const expert = family.experts[i]!;
      heads.push(await loadHead(expert, head));
      const ready = await prepareTask(task, heads[i]!, expert.checkpoint.config, encoder, { data, valPerTask: options.valPerTask, seed: options.seed });
      const fewer = ready.validation.length < options.valPerTask ? `, fewer than --val-per-task ${options.valPerTask}` : "";
      hooks.note(`${task.id}: ${ready.validation.length} validation examples from ${ready.sources.validation}${fewer}; ${ready.test.length} test examples from ${ready.sources.test}`);
      prepared.push(ready);
    }
    const hashes = await hashInputs(family, data, prepared);
    const plan = await planMemory(shapeOf(model, family.base, family.experts.length), stepShape(prepared, options), engine, {
      packing: options.pack, density: options.density, wish: options, memoryBudget: options.memoryBudget,
    });
    hooks.note(memoryText({ ...plan, what: `memory of a step of ${plan.step.tokens} tokens, task vectors as ${options.pack}:`, rows: plan.predictions }));
    const vectors = await loadTaskVectors({ base: family.base, columns: family.experts.map(columnOf) }, [...model.parameters.keys()], {
      granularity: options.granularity, packing: options.pack, density: options.density, residency: plan.chosen.residency, tables: model.tables,
      onTensor: (done, of) => hooks.progress("task vectors", done, of),
    });
    const dispose = async () => {
      vectors.dispose();
      heads.forEach(disposeHead);
      await family.close();
    };
    if (vectors.layers.length === 0) {
      vectors.dispose();
      throw new UserError(`${places.base}: no expert differs from the base; there is nothing to merge`);
    }
    hooks.note(`${vectors.layers.length} layers × ${tasks.length} experts = ${vectors.layers.length * tasks.length} coefficients`);
    return { name, places, data, engine, model, head, family, tasks: prepared, hashes, vectors, plan, dispose };
  } catch (error) {
    heads.forEach(disposeHead);
    await family.close();
    throw error;
  }
}
