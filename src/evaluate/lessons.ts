/** What each task's expert says of texts, token by token: what a merge of language models learns without labels. */
import { at, f32, lookUp } from "../at.js";
import { constantTables } from "../merge/table.js";
import type { Comparison, Teacher } from "../models/lesson.js";
import type { TokenRow } from "../models/types.js";
import {
  bucketed,
  cutBatch,
  promptOf,
  rowTokens,
  targetsOf,
  tokensAPass,
  type EncodedExample,
} from "../tasks/batches.js";
import { expertOf, type MergeContext } from "./baselines.js";
import { batchLogits, evaluationBatch, type PreparedTask } from "./evaluate.js";
import { generate, generativeModel, roomBehind } from "./generate.js";
import type { Merge } from "./merge.js";

/** How experts are asked, and learned from, token by token. */
export interface LessonOptions extends Comparison {
  /** Texts that are asked about: the expert's own greedy continuations of the prompts, or those that the data give. */
  readonly distilOn: "own" | "given";
  /** How many of the likeliest tokens are kept of each prediction. */
  readonly teacherTokens: number;
}

/** A task that a language model answers by a text. */
export type SpokenTask = PreparedTask & { readonly kind: "generate" };

export const isSpoken = (task: PreparedTask): task is SpokenTask => task.kind === "generate";

/** What an expert said of a text. */
export interface Taught {
  readonly row: TokenRow;
  readonly teacher: Teacher;
}

/** An example of one row of some text. */
const asExample = (row: TokenRow): EncodedExample => ({
  kind: "generate",
  rows: [row],
  label: 0,
  length: rowTokens(row),
  answers: [],
});

/** The text of a lesson: an example's own, or an expert's words behind its prompt. */
export function lessonText(
  example: EncodedExample,
  words: readonly number[],
  { distilOn }: Pick<LessonOptions, "distilOn">,
): TokenRow {
  if (distilOn === "given") return { ...at(example.rows, 0), mean: undefined };
  const { ids, types } = promptOf(example);
  return { ids, types, targets: words };
}

/** The expert's own words behind each prompt, with their end where they came to one. */
async function ownWords(
  merge: Merge,
  { generation: { most } }: SpokenTask,
  examples: readonly EncodedExample[],
): Promise<number[][]> {
  const { ends } = generativeModel(merge.model).generation;
  const prompts = examples.map(promptOf);
  const said = await generate(merge, prompts, most);
  return said.map((words, i) => {
    const isOver = words.length < Math.min(most, roomBehind(merge.model, at(prompts, i)));
    return isOver ? [...words, ...ends.slice(0, 1)] : words;
  });
}

/** A row's part of what was said of a batch: [predictions, 2 · count + 1] in rows. */
function teacherIn(values: Float32Array, width: number, from: number, size: number): Teacher {
  const count = (width - 1) / 2;
  const line = (i: number) => values.subarray((from + i) * width, (from + i + 1) * width);
  const ids = new Int32Array(size * count);
  const [logP, rest] = [new Float32Array(size * count), new Float32Array(size)];
  for (let i = 0; i < size; i++) {
    const own = line(i);
    ids.set(own.subarray(0, count), i * count);
    logP.set(own.subarray(count, 2 * count), i * count);
    rest[i] = f32(own, 2 * count);
  }
  return { ids, logP, rest };
}

/**
 * Asks a task's expert (its column at coefficient 1, the others at 0) for texts, or takes the given ones, and what it
 * holds likely at each of their tokens. A column that is a merge itself (in a tree) speaks for its tasks. Memory: as an
 * evaluation of one model; experts are asked one at a time.
 */
export async function askExpert(
  place: MergeContext,
  task: SpokenTask,
  examples: readonly EncodedExample[],
  options: LessonOptions,
): Promise<Taught[]> {
  const { layers, experts } = place.vectors;
  const table = constantTables.individual(layers.length, experts.length, expertOf(place, task));
  const merge = { ...place, table };
  const words = options.distilOn === "own" ? await ownWords(merge, task, examples) : [];
  const texts = examples.map((example, i) => lessonText(example, words[i] ?? [], options));
  const asked = { count: options.teacherTokens, temperature: options.temperature };
  const questions = texts.map((row) => asExample({ ...row, lesson: { asked } }));
  const batches = bucketed(questions, evaluationBatch)
    .flatMap((batch) => cutBatch(batch, place.microBatch ?? tokensAPass))
    .map((batch) => ({ head: undefined, batch }));
  const found = new Map<EncodedExample, Teacher>();
  for await (const { item, values, width } of batchLogits(merge, batches)) {
    let from = 0;
    for (const example of item.batch.examples) {
      const size = targetsOf(at(example.rows, 0)).length;
      found.set(example, teacherIn(values, width, from, size));
      from += size;
    }
  }
  return questions.map((question, i) => ({ row: at(texts, i), teacher: lookUp(found, question) }));
}

/** Examples that are learned as an expert said them. */
export const lessonExamples = (
  taught: readonly Taught[],
  { temperature, divergence }: LessonOptions,
): EncodedExample[] =>
  taught.map(({ row, teacher }) => asExample({ ...row, lesson: { teacher, temperature, divergence } }));

/** How much of an expert's mass the kept tokens hold: on average, and the least of any prediction. */
export function keptMass(taught: readonly Taught[]): { readonly mean: number; readonly least: number } {
  const masses = taught.flatMap(({ teacher }) => Array.from(teacher.rest, (rest) => 1 - Math.exp(rest)));
  return {
    mean: masses.reduce((sum, one) => sum + one, 0) / Math.max(1, masses.length),
    least: masses.reduce((least, one) => Math.min(least, one), 1),
  };
}
