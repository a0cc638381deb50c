import { join } from "node:path";
import { tfjsVersion, watchMemory } from "../backend/index.js";
import { writeText } from "../checkpoint/files.js";
import { traffic } from "../checkpoint/safetensors.js";
import { bestPoint, evaluateBaselines, searchLambda, type Place } from "../evaluate/baselines.js";
import { applyGate } from "../merge/table.js";
import { version } from "../package.js";
import { modelCard } from "../report/card.js";
import { chosenRaw, initialState, train, type TrainOptions, type TrainState } from "../train/loop.js";
import { evaluateFolder } from "./evaluate.js";
import { openInputs, type Inputs } from "./inputs.js";
import type { MergeHooks, MergeOptions, MergeResult } from "./options.js";
import { headClassOf, recorded } from "./record.js";
import { loadState, openLog, saveState } from "./state.js";
import { beginRun, writeCoefficients, writeHead, writeModel } from "./write.js";

/** A gate with open ends cannot start at 1: the slope there is nothing. */
const largestStart = 0.9;
/** AdaMerging's start, for a loss that may not look at labels. */
const unlabelledStart = 0.3;

function startFrom({ init, loss }: MergeOptions, lambda: number): number {
  if (init !== "search") return init;
  return loss === "cross-entropy" ? Math.min(largestStart, lambda) : unlabelledStart;
}

const placeOf = ({ model, vectors, plan }: Inputs): Place => ({ model, vectors, blockwise: plan.chosen.blockwise });

/** The state is small (three numbers a coefficient): it is saved often. */
const saveEvery = 10;

/** Trains from the start, or from the state in `out`; keeps state and log as it goes. */
async function trainRun(out: string, inputs: Inputs, options: MergeOptions, trainOptions: TrainOptions, hooks: MergeHooks): Promise<{ state: TrainState; finished: boolean }> {
  const { vectors, tasks, plan, hashes } = inputs;
  const identity = { version, ...recorded(options, plan), ...Object.fromEntries(hashes.map(({ role, file, sha256: hash }) => [`${role}/${file}`, hash])) };
  const start = options.resume ? await loadState(out, identity) : initialState(vectors.layers.length, vectors.experts.length, trainOptions);
  if (options.resume) hooks.note(`resumed at step ${start.moments.step} of ${options.steps}`);
  const log = await openLog(out, start.moments.step);
  if (!options.resume) await beginRun(out, () => saveState(out, identity, start));
  const result = await train(placeOf(inputs), tasks, trainOptions, start, {
    record(record) {
      log.add(record);
      hooks.step(record, options.tasks, options.steps);
    },
    async save(current) {
      await log.save();
      await saveState(out, identity, current);
    },
    stopping: hooks.stopping,
  });
  await log.save();
  return result;
}

/**
 * The main job: trains the coefficients of a merge, writes the merged model, and measures it beside its baselines.
 * Host memory: one tensor of k + 1 models at a time; device memory: see loadTaskVectors and coefficientGradient.
 */
export async function mergeByTraining(options: MergeOptions, hooks: MergeHooks): Promise<MergeResult> {
  const started = performance.now();
  const outOf = (name: string) => options.out ?? join("merged", name);
  const inputs = await openInputs(options, outOf, hooks);
  const { name, family, head, vectors, tasks, plan, data } = inputs;
  const place = placeOf(inputs);
  const out = outOf(name);
  const synthetic = tasks.some((task) => task.synthetic);
  try {
    const search = await searchLambda(place, tasks, (done, of) => hooks.progress("task arithmetic: search of λ", done, of));
    const { lambda } = bestPoint(search);
    const trainOptions: TrainOptions = { ...options, init: startFrom(options, lambda), saveEvery };
    hooks.note(`task arithmetic finds λ = ${lambda} on validation; coefficients start at ${trainOptions.init}`);
    const trainStart = performance.now();
    const readBefore = traffic.read;
    const { state, finished } = await trainRun(out, inputs, options, trainOptions, hooks);
    const trainSeconds = (performance.now() - trainStart) / 1000;
    const trainRead = traffic.read - readBefore;
    if (!finished) return { out, rows: [], synthetic, finished };

    const raw = chosenRaw(state, trainOptions);
    const table = applyGate(raw, options.gate);
    await writeModel(out, family, head, vectors, table, options.dtype === "auto" ? undefined : options.dtype, options.shardSize);
    for (const expert of family.experts) await writeHead(out, expert, head);
    await writeCoefficients(out, vectors, raw, table, `${name}: coefficients, layers × experts (${options.gate})`);

    const baselines = await evaluateBaselines(place, tasks, lambda, options.seed, hooks.progress);
    hooks.progress("supermerge, from the written files", 0, 1);
    const merged = await evaluateFolder({ ...options, folder: out, data, placement: plan.chosen }, options.loss === "entropy" ? "supermerge-entropy" : "supermerge");
    const rows = [...baselines, ...merged.rows];
    const settings = { ...recorded(options, plan), start: trainOptions.init };
    await writeText(join(out, "README.md"), modelCard({
      name, tasks: options.tasks, headClass: headClassOf(family.experts[0]!), synthetic, settings, rows, inputs: inputs.hashes, version, valPerTask: options.valPerTask,
    }));
    await writeText(join(out, "run.json"), {
      version, tfjs: tfjsVersion, node: process.version, platform: `${process.platform}-${process.arch}`, engine: plan.engine, places: inputs.places, data,
      seconds: { train: trainSeconds, total: (performance.now() - started) / 1000 },
      bytesRead: { train: trainRead, total: traffic.read },
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
      devicePeakBytes: watchMemory().peak(), planned: plan.chosen,
    });
    // Last: a folder with results is a finished one.
    await writeText(join(out, "results.json"), { rows, search: { "task-arithmetic": search }, settings });
    return { out, rows, synthetic, finished };
  } finally {
    await inputs.dispose();
  }
}
