import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { tensor, tidy, variable, zerosLike, type Tensor, type Variable } from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import { readJson, sha256, writeText, digest } from "../checkpoint/files.js";
import { openMember } from "../checkpoint/family.js";
import { openSafetensors } from "../checkpoint/safetensors.js";
import { writeSafetensors, type TensorSource } from "../checkpoint/write.js";
import { Stopped, UserError } from "../errors.js";
import { evaluationBatch, tally, type Tally } from "../evaluate/evaluate.js";
import { withAdapters } from "../models/adapters.js";
import { forward } from "../models/index.js";
import { logits } from "../models/head.js";
import { version } from "../package.js";
import { loadWeights } from "../statistics/weights.js";
import { bucketed, choicesOf, cutBatch, trainingBatches, type EncodedExample } from "../tasks/batches.js";
import { encodeMixed, type Encoder } from "../tasks/encoders.js";
import { loadTasks, pickTasks, type Task } from "../tasks/registry.js";
import { shuffled, trainingData } from "../tasks/split.js";
import { fromFloat32, toFloat32 } from "../tensor/dtype.js";
import { learningRate } from "../train/adamw.js";
import { trainedHead, weightsOf, weightStep, type DeviceMoments, type Trainee } from "../train/weights.js";
import { checkKind, checkVocabulary, outputsOf } from "../inputs/check.js";
import { freshAdapter, freshHead, type FinetuneOptions, type TrainingTask } from "./start.js";
import { writeExpert } from "./write.js";
import type { MergeHooks } from "../config/options.js";
import { hashOf } from "../inputs/record.js";
import { clearMerge, openOutput } from "../folder/output.js";
import { buildModel, encoderFor, readFamily, startFor } from "../inputs/prepare.js";

/** Accuracy is left out where a text is to be said: only its loss is told. */
export interface Score {
  readonly task: string;
  readonly accuracy?: number;
  readonly loss: number;
}

/** What a language model learns of an example: to say the right answer. */
const asGeneration = (example: EncodedExample): EncodedExample => ({
  kind: "generate",
  rows: [{ ...at(example.rows, example.label), mean: undefined }],
  label: 0,
  length: example.length,
  answers: example.kind === "generate" ? example.answers : [],
});

function scoreText({ task, accuracy, loss }: Score): string {
  return `${task} ${accuracy === undefined ? "" : `${(100 * accuracy).toFixed(1)} %, `}loss ${loss.toFixed(4)}`;
}

async function trainingTasksOf(
  tasks: readonly Task[],
  options: FinetuneOptions,
  encoder: Encoder,
  generates: boolean,
): Promise<TrainingTask[]> {
  const trainingTasks: TrainingTask[] = [];
  for (const task of tasks) {
    checkKind(task, encoder);
    const { train, judge, sources } = await trainingData(options.data, task, options.seed);
    const drawn =
      options.most === undefined
        ? train
        : shuffled(train, `${options.seed}/finetune/${task.id}`).slice(0, options.most);
    if (drawn.length === 0) throw new UserError(`${options.data}/${task.id}: there is nothing to train on`);
    const encoded = encodeMixed(drawn, encoder, task, false);
    const fit = generates ? encoded.map(asGeneration) : encoded;
    trainingTasks.push({
      task,
      sources,
      fit,
      judge: encodeMixed(judge, encoder, task, false),
      kind: encoder.answering(task).kind,
      prefix: `head/${task.id}/`,
      batch: trainingBatches(task.id, fit, options.batchSize, options.order ?? options.seed),
      batches: bucketed(fit, options.batchSize).length,
    });
  }
  return trainingTasks;
}

/** Accuracy and loss on examples, a batch at a time. */
async function scoreOf(
  trainee: Trainee,
  { task, judge, kind, prefix }: TrainingTask,
  microBatch: number,
): Promise<Score> {
  const sum: Tally = { correct: 0, loss: 0, over: 0 };
  const weights = weightsOf(trainee);
  for (const batch of bucketed(judge, evaluationBatch).flatMap((whole) => cutBatch(whole, microBatch))) {
    const scores = tidy(() =>
      logits(
        forward(trainee.model, weights, batch.rows),
        trainedHead(trainee.trained, prefix),
        choicesOf(batch),
      ),
    );
    tally(sum, batch, (await scores.data()) as Float32Array, scores.shape[1]);
    scores.dispose();
  }
  return {
    task: task.id,
    ...(kind !== "generate" && { accuracy: sum.correct / judge.length }),
    loss: sum.loss / sum.over,
  };
}

const stateFiles = { json: "finetune.json", tensors: "finetune.safetensors" } as const;

/** Copies every tensor of some maps into one file. */
async function saveState(
  out: string,
  { taken, ...state }: { identity: string; step: number; best: unknown; taken: ReadonlyMap<string, number> },
  maps: Readonly<Record<string, ReadonlyMap<string, Variable>>>,
): Promise<void> {
  const sources = Object.entries(maps).flatMap(([kind, map]) =>
    [...map].map(([name, v]): TensorSource => ({
      name: `${kind}/${name}`,
      dtype: "F32",
      shape: v.shape,
      bytes: async () => fromFloat32((await v.data()) as Float32Array, "F32"),
    })),
  );
  await writeSafetensors(join(out, stateFiles.tensors), sources, { step: String(state.step) });
  await writeText(join(out, stateFiles.json), { ...state, taken: Object.fromEntries(taken) });
}

async function loadState(
  out: string,
  identity: string,
  taken: Map<string, number>,
  maps: Readonly<Record<string, ReadonlyMap<string, Variable>>>,
): Promise<{ step: number; best: { loss: number; scores: Score[] } | undefined }> {
  const path = join(out, stateFiles.json);
  if (!existsSync(path) || !existsSync(join(out, stateFiles.tensors)))
    throw new UserError(`--resume: ${out} holds no state of a fine-tuning; start without --resume`);
  const {
    identity: saved,
    step,
    best,
    taken: steps,
  } = (await readJson(path)) as {
    identity: string;
    step: number;
    best?: { loss: number; scores: Score[] };
    taken: Record<string, number>;
  };
  if (saved !== identity)
    throw new UserError(
      `--resume: ${path} was made with other settings or data; use the same, or start without --resume`,
    );
  for (const [name, count] of Object.entries(steps)) taken.set(name, count);
  const file = await openSafetensors(join(out, stateFiles.tensors));
  try {
    if (file.metadata?.["step"] !== String(step))
      throw new UserError(
        `--resume: ${path} and ${stateFiles.tensors} are of two moments; start without --resume`,
      );
    for (const [kind, map] of Object.entries(maps)) {
      for (const [name, v] of map) {
        const value = tensor(toFloat32(await file.read(`${kind}/${name}`)), v.shape);
        v.assign(value);
        value.dispose();
      }
    }
  } finally {
    await file.close();
  }
  return { step, best };
}

/**
 * Fine-tunes a model on a task, or on several at once (the papers' Multitask): every weight, LoRA or
 * (IA)³, with AdamW, a linear warm-up over a twentieth of the steps and a linear decay, no dropout. A
 * language model learns to say the right answer. Without an epoch, the start is written: the base, with
 * the head that training would begin with. After each epoch it is scored on the validation file; the
 * epoch with the lowest loss is what is written. Stopped, it goes on from the last whole epoch.
 */
export async function finetune(
  options: FinetuneOptions,
  hooks: MergeHooks,
): Promise<{ out: string; scores: readonly Score[] } | undefined> {
  const { how, epochs, seed, out } = options;
  const tasks = pickTasks(await loadTasks(options.data), options.tasks);
  const family = await readFamily(options.base);
  const base = await openMember("base", options.base, family.canonical);
  const owned: { dispose(): void }[] = [];
  try {
    const outputLayer = family.outputLayers[0]!;
    const head = outputLayer === "pool" ? family.head : undefined;
    const plain = buildModel(base, outputLayer);
    const { adapterModules, start, fixed: scales } = freshAdapter(plain, options);
    const model = withAdapters(plain, adapterModules);
    const encoder = await encoderFor(options.base, model, options);
    checkVocabulary(options.base, encoder, model);
    await startFor(model, options.backend);
    const trainingTasks = await trainingTasksOf(tasks, options, encoder, outputLayer === "score");
    for (const { task, fit, judge } of trainingTasks)
      hooks.note(`${task.id}: ${fit.length} training examples, ${judge.length} to choose the epoch by`);
    const loaded = await loadWeights(plain, base);
    owned.push(loaded);
    const fixed = new Map<string, Tensor>(loaded.names.map((name, i) => [name, loaded.tensors[i]!]));
    for (const [name, { shape, values }] of scales) fixed.set(name, tensor(values, shape));
    const begin = new Map<string, Tensor>(
      how === "full" ? fixed : [...start].map(([name, { shape, values }]) => [name, tensor(values, shape)]),
    );
    if (head)
      for (const { task, prefix } of trainingTasks)
        for (const [name, { shape, values }] of freshHead(head, prefix, outputsOf(task), model.width, seed))
          begin.set(name, tensor(values, shape));
    const trained = new Map([...begin].map(([name, value]) => [name, variable(value)]));
    // Variables have handles of their own.
    begin.forEach((value) => value.dispose());
    if (how === "full") fixed.clear();
    owned.push({ dispose: () => fixed.forEach((value) => value.dispose()) });
    const zeros = () =>
      new Map(
        [...trained].map(([name, v]) => {
          const nothing = zerosLike(v);
          const made = variable(nothing);
          nothing.dispose();
          return [name, made];
        }),
      );
    const moments: DeviceMoments = { first: zeros(), second: zeros(), taken: new Map() };
    // Without an epoch, what it began with.
    const bestOf = new Map([...trained].map(([name, v]) => [name, variable(v)]));
    owned.push({
      dispose: () =>
        [trained, moments.first, moments.second, bestOf].forEach((map) => map.forEach((v) => v.dispose())),
    });
    const trainee: Trainee = { model, fixed, trained };

    await openOutput(out, [options.base]);
    if (!options.resume) await clearMerge(out);
    const { resume: _r, out: _o, backend: _b, base: _p, data: _d, prompts: _q, ...chosen } = options;
    const files = [
      ...base.checkpoint.files.map((file) => join(base.checkpoint.folder, file)),
      ...(encoder.prompts?.(tasks) ?? []),
      ...["tokenizer.json", "preprocessor_config.json"]
        .map((file) => join(options.base, file))
        .filter(existsSync),
    ];
    const identity = digest({
      version,
      ...chosen,
      files: await Promise.all(files.map((path) => sha256(path))),
      data: await Promise.all(trainingTasks.flatMap(({ sources }) => sources).map(hashOf)),
    });
    const maps = { weight: trained, first: moments.first, second: moments.second, best: bestOf };
    let { step, best } = options.resume
      ? await loadState(out, identity, moments.taken, maps)
      : { step: 0, best: undefined as { loss: number; scores: Score[] } | undefined };
    const perEpoch = trainingTasks.reduce((sum, { batches }) => sum + batches, 0);
    const steps = epochs * perEpoch;
    const warmup = Math.max(1, Math.round(steps / 20));
    while (step < steps) {
      const epoch = Math.floor(step / perEpoch);
      // Every task's batches, in an order that the seed draws.
      const order = shuffled(
        trainingTasks.flatMap((task) => Array.from({ length: task.batches }, (_, n) => ({ task, n }))),
        `${options.order ?? seed}/epoch/${epoch}`,
      );
      let total = 0;
      for (const { task, n } of order) {
        const batch = task.batch(epoch * task.batches + n);
        const lr = learningRate(step, { steps, lr: options.lr, warmup, decay: "linear" });
        total += await weightStep(
          trainee,
          moments,
          [{ head: trainedHead(trained, task.prefix), batch, weight: 1 }],
          { lr, weightDecay: options.weightDecay, clip: 1, microBatch: options.microBatch },
        );
        hooks.progress(`epoch ${epoch + 1} of ${epochs}`, ++step - epoch * perEpoch, perEpoch);
        // On wasm nothing waits for a device: signals get their turn here.
        await setImmediate();
        if (hooks.stopping()) return undefined;
      }
      const scores: Score[] = [];
      for (const task of trainingTasks) scores.push(await scoreOf(trainee, task, options.microBatch));
      const loss = scores.reduce((sum, one) => sum + one.loss, 0);
      const told =
        `epoch ${epoch + 1}: training loss ${(total / perEpoch).toFixed(4)}; ` +
        scores.map(scoreText).join("; ");
      if (!best || loss < best.loss) {
        best = { loss, scores };
        for (const [name, v] of trained) bestOf.get(name)!.assign(v);
      }
      await saveState(out, { identity, step, best, taken: moments.taken }, maps);
      hooks.note(told);
    }
    await writeExpert(out, base, { plain, head, trainingTasks, best: bestOf, adapterModules }, options);
    await rm(join(out, stateFiles.tensors), { force: true });
    await writeText(join(out, stateFiles.json), {
      identity,
      version,
      settings: { ...chosen, base: basename(options.base), data: basename(options.data) },
      scores: best?.scores ?? [],
    });
    return { out, scores: best?.scores ?? [] };
  } catch (error) {
    if (error instanceof Stopped) return undefined;
    throw error;
  } finally {
    owned.forEach((one) => one.dispose());
    await base.checkpoint.close();
  }
}
