/** What a fine-tuning learns from and is judged by, task by task. */
import { tidy } from "@tensorflow/tfjs-core";
import { UserError } from "../errors.js";
import { emptyTally, mayLackAnswers, settle, tally, type AnswerNames } from "../evaluate/answers.js";
import { evaluationBatch, scoreOf } from "../evaluate/evaluate.js";
import { checkKind } from "../inputs/prepare.js";
import { forward } from "../models/index.js";
import { at } from "../at.js";
import {
  bucketed,
  cutBatch,
  trainingBatches,
  type AnswerKind,
  type Batch,
  type EncodedExample,
} from "../tasks/batches.js";
import { isAsked, scoresOf } from "../tasks/decisions.js";
import { encodeMixed, type Encoder } from "../tasks/encoders.js";
import type { DataFiles } from "../tasks/files.js";
import type { Task } from "../tasks/registry.js";
import { shuffled, trainingData } from "../tasks/split.js";
import { trainedHead, weightsOf, type Trainee } from "../train/weights.js";
import type { FinetuneOptions } from "./start.js";

/** A task as it is trained on. */
export interface TrainingTask {
  readonly task: Task;
  readonly sources: readonly DataFiles[];
  readonly fit: readonly EncodedExample[];
  readonly judge: readonly EncodedExample[];
  /** How it is judged. */
  readonly kind: AnswerKind;
  readonly names: AnswerNames;
  /** Of its head's tensors among those that are trained. */
  readonly prefix: string;
  batch(step: number): Batch;
  /** Batches in an epoch. */
  readonly batches: number;
}

/** A task's score on the examples that the epoch is chosen by. Generated texts have no accuracy here. */
export interface EpochScore {
  readonly task: string;
  readonly accuracy?: number | undefined;
  /** What that is, where it is not accuracy. */
  readonly metric?: string | undefined;
  readonly loss: number;
}

/** What a language model learns of an example: to generate the right answer. */
const asGeneration = (example: EncodedExample): EncodedExample => ({
  kind: "generate",
  rows: [{ ...at(example.rows, example.label), mean: undefined }],
  label: 0,
  length: example.length,
  answers: example.kind === "generate" ? example.answers : [],
});

async function trainingTask(
  task: Task,
  options: FinetuneOptions,
  encoder: Encoder,
  generates: boolean,
): Promise<TrainingTask> {
  checkKind(task, encoder);
  const { data, seed, most, batchSize, split } = options;
  const { train, judge, sources } = await trainingData(data, task, seed, split);
  const drawn = most === undefined ? train : shuffled(train, `${seed}/finetune/${task.id}`).slice(0, most);
  if (drawn.length === 0) throw new UserError(`${data}/${task.id}: there is nothing to train on`);
  const encoded = encodeMixed(drawn, encoder, task, { keep: false }).filter(isAsked);
  const fit = generates ? encoded.map(asGeneration) : encoded;
  return {
    task,
    sources,
    fit,
    judge: encodeMixed(judge, encoder, task, { keep: false }).filter(isAsked),
    kind: encoder.answering(task).kind,
    names: { metrics: task.metrics, classes: task.labels ?? undefined },
    prefix: `head/${task.id}/`,
    batch: trainingBatches(task.id, fit, batchSize, options.order ?? seed),
    batches: bucketed(fit, batchSize).length,
  };
}

/** @param generates whether the model is a language model that learns to generate the answers */
export async function trainingTasks(
  tasks: readonly Task[],
  options: FinetuneOptions,
  encoder: Encoder,
  generates: boolean,
): Promise<TrainingTask[]> {
  const found: TrainingTask[] = [];
  for (const task of tasks) found.push(await trainingTask(task, options, encoder, generates));
  return found;
}

/** Accuracy and loss on the examples that judge, a batch at a time. */
async function scoreTask(trainee: Trainee, training: TrainingTask, microBatch: number): Promise<EpochScore> {
  const { task, judge, kind, prefix, names } = training;
  const sum = emptyTally();
  const mayLack = mayLackAnswers(judge);
  const weights = weightsOf(trainee);
  const head = trainedHead(trainee.trained, prefix, trainee.head);
  const batches = bucketed(judge, evaluationBatch).flatMap((whole) => cutBatch(whole, microBatch));
  for (const batch of batches) {
    const scores = tidy(() => scoresOf(forward(trainee.model, weights, batch.rows), head, batch));
    tally(sum, batch, { values: await scores.data<"float32">(), width: scores.shape[1] }, mayLack);
    scores.dispose();
  }
  settle(sum);
  if (kind === "generate") return { task: task.id, loss: sum.loss / sum.over };
  const { accuracy, loss } = scoreOf(names, sum, judge.length);
  const [metric = "accuracy"] = names.metrics;
  return { task: task.id, accuracy, ...(metric !== "accuracy" && { metric }), loss };
}

/** All tasks' scores. */
export async function scoreTasks(
  trainee: Trainee,
  tasks: readonly TrainingTask[],
  microBatch: number,
): Promise<EpochScore[]> {
  const scores: EpochScore[] = [];
  for (const task of tasks) scores.push(await scoreTask(trainee, task, microBatch));
  return scores;
}
