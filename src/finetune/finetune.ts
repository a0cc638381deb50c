import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { at } from "../at.js";
import { openMember, type Member } from "../checkpoint/family.js";
import { digest, sha256, Resources } from "../checkpoint/files.js";
import type { MergeHooks } from "../config/options.js";
import { Stopped } from "../errors.js";
import { finetuneFile, fileNames } from "../folder/files.js";
import { clearMerge, openOutput } from "../folder/output.js";
import { checkVocabulary } from "../inputs/models.js";
import { encoderFor } from "../inputs/encoder.js";
import { withoutUnread } from "../inputs/models.js";
import { buildModel, readFamily, startFor } from "../inputs/prepare.js";
import { dataHash } from "../inputs/data.js";
import { withAdapters } from "../models/adapters.js";
import { version } from "../package.js";
import { titleOfMetric } from "../report/caption.js";
import type { Encoder } from "../tasks/encoders.js";
import { tasksOf } from "../inputs/data.js";
import type { Task } from "../tasks/registry.js";
import { shuffled } from "../tasks/split.js";
import { learningRate } from "../train/adamw.js";
import { trainedHead, weightStep } from "../train/weights.js";
import { freshAdapter, freshHeadForm, type FinetuneOptions } from "./start.js";
import { keepChatTemplate } from "../checkpoint/chat-template.js";
import { hasEpoch, loadEpoch, madeOtherwise, markBegun, saveEpoch, type Progress } from "./state.js";
import { scoreTasks, trainingTasks, type EpochScore, type TrainingTask } from "./tasks.js";
import { loadTrainee, type LoadedTrainee } from "./trainee.js";
import { writeExpert } from "./write.js";

/** What the numbers of a fine-tuning depend on: settings, the base's files, prompts, data. */
async function finetuneIdentity(
  options: FinetuneOptions,
  base: Member,
  encoder: Encoder,
  tasks: readonly TrainingTask[],
): Promise<string> {
  const inFolder = ["tokenizer.json", "spiece.model", "preprocessor_config.json"]
    .map((file) => join(options.base, file))
    .filter(existsSync);
  const files = [
    ...base.checkpoint.files.map((file) => join(base.checkpoint.folder, file)),
    ...(encoder.prompts?.(tasks.map(({ task }) => task)) ?? []),
    ...inFolder,
  ];
  return digest({
    version,
    ...numbersOf(options),
    files: await Promise.all(files.map((path) => sha256(path))),
    ...(hasChats(tasks) && { chatTemplate: encoder.chatTemplate }),
    data: await Promise.all(tasks.flatMap(({ sources }) => sources).map(dataHash)),
  });
}

const hasChats = (tasks: readonly TrainingTask[]): boolean => tasks.some(({ task }) => task.kind === "chat");

/** Options that change numbers: not where things are, nor on what they run. */
function numbersOf(options: FinetuneOptions): Record<string, unknown> {
  const {
    resume: _r,
    overwrite: _w,
    out: _o,
    backend: _b,
    base: _p,
    data: _d,
    prompts: _q,
    chatTemplate: _t,
    ...numbers
  } = options;
  return numbers;
}

function scoreText({ task, accuracy, metric = "accuracy", loss }: EpochScore): string {
  const right = accuracy === undefined ? "" : `${titleOfMetric(metric)} ${(100 * accuracy).toFixed(1)} %, `;
  return `${task} ${right}loss ${loss.toFixed(4)}`;
}

/** A fine-tuning under way. */
interface Training {
  readonly options: FinetuneOptions;
  readonly loaded: LoadedTrainee;
  readonly tasks: readonly TrainingTask[];
  /** Batches of all tasks in an epoch. */
  readonly perEpoch: number;
  readonly hooks: MergeHooks;
}

/** How far an epoch is: its steps that are done, and their losses' sum. */
interface EpochPart {
  readonly done: number;
  readonly lossSum: number;
}

/** Milliseconds after which the state is saved within an epoch: what a kill costs at most. */
const savedEvery = 120_000;

/**
 * Trains one epoch, all tasks' batches in an order that the seed draws, from where it stands.
 * @param save called now and then, and where it is asked to stop
 * @returns where it stands then: at its end, unless it was asked to stop
 */
async function trainEpoch(
  { options, loaded, tasks, perEpoch, hooks }: Training,
  epoch: number,
  begin: EpochPart,
  save: (part: EpochPart) => Promise<void>,
): Promise<EpochPart> {
  const { trainee, moments } = loaded;
  const { epochs, microBatch, weightDecay } = options;
  const steps = epochs * perEpoch;
  const warmup = Math.max(1, Math.round(steps / 20));
  const batches = tasks.flatMap((task) => Array.from({ length: task.batches }, (_, n) => ({ task, n })));
  const order = shuffled(batches, `${options.order ?? options.seed}/epoch/${epoch}`);
  let { lossSum } = begin;
  let savedAt = performance.now();
  for (const [step, { task, n }] of [...order.entries()].slice(begin.done)) {
    const batch = task.batch(epoch * task.batches + n);
    const lr = learningRate(epoch * perEpoch + step, { steps, lr: options.lr, warmup, decay: "linear" });
    const loss = await weightStep(
      trainee,
      moments,
      [{ head: trainedHead(trainee.trained, task.prefix, trainee.head), batch, weight: 1 }],
      { lr, weightDecay, clip: 1, microBatch },
    );
    lossSum += loss;
    const done = step + 1;
    hooks.progress(`epoch ${epoch + 1} of ${epochs}, loss ${loss.toFixed(4)}, step`, done, perEpoch);
    // On wasm nothing waits for a device: signals get their turn here.
    await setImmediate();
    const isLast = done === perEpoch;
    const stops = !isLast && hooks.stopping();
    if (stops || (!isLast && performance.now() - savedAt > savedEvery)) {
      await save({ done, lossSum });
      savedAt = performance.now();
    }
    if (stops) return { done, lossSum };
  }
  return { done: perEpoch, lossSum };
}

/**
 * Trains the epochs that are left; after each, the state is saved, with the best epoch's tensors.
 * @returns where it stands at the end; undefined where it was asked to stop
 */
async function trainEpochs(
  training: Training,
  out: string,
  identity: string,
  begin: Progress,
): Promise<Progress | undefined> {
  const { options, loaded, tasks, perEpoch, hooks } = training;
  let progress = begin;
  let part: EpochPart = { done: begin.step % perEpoch, lossSum: begin.lossSum ?? 0 };
  const { taken } = loaded.moments;
  for (let epoch = Math.floor(begin.step / perEpoch); epoch < options.epochs; epoch++) {
    const { best: before } = progress;
    part = await trainEpoch(training, epoch, part, ({ done, lossSum }) =>
      saveEpoch(
        out,
        identity,
        { step: epoch * perEpoch + done, lossSum, best: before },
        { taken, maps: loaded.maps },
      ),
    );
    if (part.done < perEpoch) return undefined;
    const trainingLoss = part.lossSum / perEpoch;
    part = { done: 0, lossSum: 0 };
    const scores = await scoreTasks(loaded.trainee, tasks, options.microBatch);
    const loss = scores.reduce((sum, score) => sum + score.loss, 0);
    let { best } = progress;
    if (!best || loss < best.loss) {
      best = { loss, scores };
      loaded.keepBest();
    }
    progress = { step: (epoch + 1) * perEpoch, best };
    await saveEpoch(out, identity, progress, { taken, maps: loaded.maps });
    hooks.note(
      `epoch ${epoch + 1}: training loss ${trainingLoss.toFixed(4)}; ${scores.map(scoreText).join("; ")}`,
    );
  }
  return progress;
}

/** Opens the model and the data, trains, writes. @returns the scores; undefined where it was asked to stop */
async function run(
  options: FinetuneOptions,
  named: readonly Task[],
  hooks: MergeHooks,
  resources: Resources,
): Promise<readonly EpochScore[] | undefined> {
  const { out } = options;
  const family = await readFamily(options.base);
  const opened = await openMember("base", options.base, family.canonical);
  resources.add(() => opened.checkpoint.close());
  const outputLayer = at(family.outputLayers, 0);
  const { head, withoutPooler } = freshHeadForm(family, opened, named);
  const plain = buildModel(opened, outputLayer, withoutPooler);
  const [base = opened] = await withoutUnread(family, plain, [opened]);
  const adapter = freshAdapter(plain, options);
  const model = withAdapters(plain, adapter.adapterModules);
  const encoder = await encoderFor(options.base, model, options);
  checkVocabulary(options.base, encoder, model);
  await startFor(model, options.backend);
  const tasks = await trainingTasks(named, options, encoder, outputLayer === "score");
  for (const { task, fit, judge } of tasks)
    hooks.note(`${task.id}: ${fit.length} training examples, ${judge.length} to choose the epoch by`);
  const loaded = await loadTrainee({ plain, base, head }, adapter, tasks, options);
  resources.add(() => loaded.dispose());

  const before = await finetuneFile.readIfSound(out);
  const goesOn = options.resume && (hasEpoch(out) || before?.scores !== undefined);
  await openOutput(out, [options.base], goesOn || options.overwrite);
  const identity = await finetuneIdentity(options, base, encoder, tasks);
  if (options.resume && before?.scores) {
    if (before.identity !== identity) throw madeOtherwise(out);
    hooks.note(`${out} is finished already`);
    await rm(join(out, fileNames.finetuneTensors), { force: true });
    return before.scores;
  }
  const resume = options.resume && hasEpoch(out);
  if (options.resume && !resume) hooks.note(`--resume: ${out} holds no state; the fine-tuning starts anew`);
  if (!resume) {
    await clearMerge(out);
    await rm(join(out, fileNames.finetuneTensors), { force: true });
    await markBegun(out, identity);
  }
  let begin: Progress = { step: 0, best: undefined };
  if (resume) begin = await loadEpoch(out, identity, loaded.moments.taken, loaded.maps);
  const perEpoch = tasks.reduce((sum, { batches }) => sum + batches, 0);
  const end = await trainEpochs({ options, loaded, tasks, perEpoch, hooks }, out, identity, begin);
  if (!end) return undefined;
  const { best, adapterModules } = loaded;
  await writeExpert(out, base, { plain, head, tasks, best, adapterModules }, options);
  if (hasChats(tasks)) await keepChatTemplate(out, encoder.chatTemplate);
  const scores = end.best?.scores ?? [];
  const settings = { ...numbersOf(options), base: basename(options.base), data: basename(options.data) };
  await finetuneFile.write(out, { identity, version, settings, scores });
  // Last: a folder that was killed before has all that it goes on from.
  await rm(join(out, fileNames.finetuneTensors), { force: true });
  return scores;
}

/**
 * Fine-tunes a model on a task, or on several at once (the papers' Multitask): every weight, LoRA or
 * (IA)³, with AdamW, a linear warm-up over a twentieth of the steps and a linear decay, no dropout. A
 * language model learns to generate the right answer. Without an epoch, the start is written: the base,
 * with the head that training would begin with. After each epoch it is scored on the validation file;
 * the epoch with the lowest loss is what is written. Stopped, it goes on from where it stands.
 * @returns undefined where it was asked to stop
 */
export async function finetune(
  options: FinetuneOptions,
  hooks: MergeHooks,
): Promise<{ out: string; scores: readonly EpochScore[] } | undefined> {
  const resources = new Resources();
  try {
    const { note } = hooks;
    const knowledge = { expertOf: () => undefined, note, columns: options.columns };
    const tasks = await tasksOf(options.data, options.tasks, knowledge);
    const scores = await run(options, tasks, hooks, resources);
    return scores && { out: options.out, scores };
  } catch (error) {
    if (error instanceof Stopped) return undefined;
    throw error;
  } finally {
    await resources.close();
  }
}
