import { tensor2d, tidy } from "@tensorflow/tfjs-core";
import { at, lookUp } from "../at.js";
import { sweepBytes } from "../merge/residency.js";
import type { Head } from "../models/layers.js";
import { outputForward, streamedOutput } from "../stages/output.js";
import { stageForward, stagesOf, openStage, type StageInput } from "../stages/stages.js";
import {
  batchTokens,
  bucketed,
  cutBatch,
  groupUpTo,
  promptOf,
  tokensAPass,
  type Batch,
  type EncodedExample,
} from "../tasks/batches.js";
import { scoresOf } from "../tasks/decisions.js";
import type { Answering, TextOutput } from "../tasks/encoders.js";
import { metricNames, type MetricName } from "../tasks/metrics.js";
import { median } from "../report/rows.js";
import {
  emptyTally,
  mayLackAnswers,
  rightMarks,
  measure,
  settle,
  tally,
  type AnswerNames,
  type Answered,
  type Tally,
} from "./answers.js";
import { generate } from "./generate.js";
import type { Merge } from "./merge.js";

/** A task made ready for a model: how it is answered, its head and encoded examples. */
export type PreparedTask = Answering & TaskExamples;

interface TaskExamples extends AnswerNames {
  readonly id: string;
  readonly synthetic: boolean;
  /** None where the model scores its rows itself. */
  readonly head: Head | undefined;
  readonly validation: readonly EncodedExample[];
  readonly test: readonly EncodedExample[];
  /** What is trained on in place of its examples: texts, with what its expert says of them (evaluate/lessons.ts). */
  readonly lessons?: readonly EncodedExample[] | undefined;
  /** The test examples in every prompt template, where there are several: `test` is the first of them. */
  readonly tests?: readonly (readonly EncodedExample[])[] | undefined;
}

export interface TaskScore {
  /** The first of the task's metrics, which chooses between models: accuracy, where the answers are classes. */
  readonly accuracy: number;
  /** All of them. */
  readonly metrics: Readonly<Partial<Record<MetricName, number>>>;
  /** Mean cross-entropy in nats of a decision (tasks/decisions.ts), or of a token to be said; of numbers, squared. */
  readonly loss: number;
  readonly n: number;
  /** Of test examples whose answers are classes: 1 where right; of several templates, each one's, by |. */
  readonly right?: string | undefined;
}

/** Examples that run through the model together, and the head that scores them. */
export interface HeadBatch {
  readonly head: Head | undefined;
  readonly batch: Batch;
}

export const evaluationBatch = 32;

/**
 * Logits of batches under a merge, in their order: [examples, classes or choices] each. Device memory: the merged
 * weights (of the largest block, where it runs blockwise) and one batch's activations.
 */
export async function* batchLogits<T extends HeadBatch>(
  { model, vectors, table, blockwise = false }: Merge,
  items: readonly T[],
): AsyncGenerator<{ item: T; values: Float32Array; width: number }> {
  const stages = stagesOf(model, blockwise);
  // Activations at a boundary of blocks wait in host memory.
  const most = blockwise ? sweepBytes : Infinity;
  for (const sweep of groupUpTo(items, most, ({ batch }) => 4 * model.width * batchTokens(batch))) {
    const inputs = sweep.map(({ batch }): StageInput => ({ batch: model.prepare(batch.rows), boundary: [] }));
    for (const stage of stages) {
      const output = streamedOutput({ model, vectors }, stage);
      // What a teacher is asked needs the likeliest of all tokens: the whole layer.
      const isAsked = sweep.some(({ batch }) => batch.rows.some(({ lesson }) => lesson && !lesson.teacher));
      if (output && !isAsked) {
        const scores = await outputForward({ model, vectors, table }, output, inputs);
        for (const [i, input] of inputs.entries()) inputs[i] = { ...input, boundary: at(scores, i) };
        continue;
      }
      const { weights, dispose } = await openStage(
        { model, vectors, table },
        stage,
        inputs.map(({ batch }) => batch),
      );
      try {
        // One by one in place: what has been run lets go of its input.
        for (const [i, input] of inputs.entries())
          inputs[i] = { ...input, boundary: await stageForward(model, stage, weights, input) };
      } finally {
        dispose();
      }
    }
    for (const [i, item] of sweep.entries()) {
      const { values, shape } = at(at(inputs, i).boundary, 0);
      const scores = tidy(() =>
        scoresOf(tensor2d(values, [at(shape, 0), at(shape, 1)]), item.head, item.batch),
      );
      try {
        yield { item, width: scores.shape[1], values: await scores.data<"float32">() };
      } finally {
        scores.dispose();
      }
    }
  }
}

/**
 * Scores of several tasks under one merge, in their order. A task with several prompt templates is
 * tested in each: its score is the median over them (of accuracy, and of the loss).
 */
export async function evaluateTasks(
  merge: Merge,
  tasks: readonly PreparedTask[],
  split: "validation" | "test",
): Promise<TaskScore[]> {
  return (await measureTasks(merge, tasks, split)).map(({ score }) => score);
}

/** A task's score, and what was answered of every example (in the first of several templates). */
export interface MeasuredTask {
  readonly score: TaskScore;
  readonly answered: readonly Answered[];
}

/** {@link evaluateTasks}, with the answers. */
export async function measureTasks(
  merge: Merge,
  tasks: readonly PreparedTask[],
  split: "validation" | "test",
): Promise<MeasuredTask[]> {
  const variants = tasks.map((task) =>
    templatesOf(task, split).map((examples): PreparedTask => ({ ...task, [split]: examples })),
  );
  const each = await evaluateEach(merge, variants.flat(), split);
  let from = 0;
  return variants.map(({ length }) => {
    const mine = each.slice(from, (from += length));
    return { score: medianScore(mine.map(({ score }) => score)), answered: at(mine, 0).answered };
  });
}

/** Of a task's scores in several templates. */
function medianScore(scores: readonly TaskScore[]): TaskScore {
  const [first] = scores;
  if (scores.length === 1 && first) return first;
  const names = metricNames.filter((name) => first?.metrics[name] !== undefined);
  return {
    accuracy: median(scores.map(({ accuracy }) => accuracy)),
    metrics: Object.fromEntries(
      names.map((name) => [name, median(scores.map(({ metrics }) => metrics[name] ?? NaN))]),
    ),
    loss: median(scores.map(({ loss }) => loss)),
    ...(first?.right !== undefined && { right: scores.map(({ right }) => right).join("|") }),
    // Templates may leave examples out.
    n: Math.max(...scores.map(({ n }) => n)),
  };
}

/** A split's examples in every prompt template that they are scored in. */
function templatesOf(
  task: PreparedTask,
  split: "validation" | "test",
): readonly (readonly EncodedExample[])[] {
  if (split === "test" && task.tests) return task.tests;
  return [task[split]];
}

async function evaluateEach(
  merge: Merge,
  tasks: readonly PreparedTask[],
  split: "validation" | "test",
): Promise<MeasuredTask[]> {
  const tallies = await answersOfEach(merge, tasks, split);
  return tasks.map((task, i) => {
    const sum = at(tallies, i);
    const right = split === "test" ? rightMarks(sum.answered) : undefined;
    const score = { ...scoreOf(task, sum, task[split].length), ...(right !== undefined && { right }) };
    return { score, answered: sum.answered };
  });
}

/** A task's score by what was answered of its examples. */
export function scoreOf(names: AnswerNames, { answered, loss, over }: Tally, n: number): TaskScore {
  const metrics = measure(answered, names);
  return { accuracy: metrics[at(names.metrics, 0)] ?? NaN, metrics, loss: loss / over, n };
}

/** What a merge answers to every example of some tasks. */
async function answersOfEach(
  merge: Merge,
  tasks: readonly PreparedTask[],
  split: "validation" | "test",
): Promise<Tally[]> {
  const parts = tasks.map((task) => ({ task, sum: emptyTally(), mayLack: mayLackAnswers(task[split]) }));
  const items = parts.flatMap(({ task, ...part }) =>
    bucketed(task[split], evaluationBatch)
      .flatMap((batch) => cutBatch(batch, merge.microBatch ?? tokensAPass))
      .map((batch) => ({ ...part, head: task.head, batch })),
  );
  for await (const { item, values, width } of batchLogits(merge, items))
    tally(item.sum, item.batch, { values, width }, item.mayLack);
  for (const { task, sum } of parts) {
    settle(sum);
    if (task.kind === "generate") sum.answered.push(...(await saidOf(merge, task[split], task.generation)));
  }
  return parts.map(({ task, sum }) => ({ ...sum, answered: asAsked(sum.answered, task[split]) }));
}

/** Answers in the order of their examples. */
function asAsked(answered: readonly Answered[], examples: readonly EncodedExample[]): Answered[] {
  const byExample = new Map(answered.map((one) => [one.example, one]));
  return examples.map((example) => lookUp(byExample, example));
}

/** The texts that a merge says. */
async function saidOf(
  merge: Merge,
  examples: readonly EncodedExample[],
  { most, text }: TextOutput,
): Promise<Answered[]> {
  const said = await generate(merge, examples.map(promptOf), most);
  return examples.map((example, i) => ({ example, answer: text(at(said, i)) }));
}
