/** What experts said, kept in the user's cache by a hash of all that it depends on. */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { at, i32 } from "../at.js";
import { cacheFolder } from "../backend/index.js";
import { digest } from "../checkpoint/files.js";
import { openSafetensors } from "../checkpoint/safetensors.js";
import { writeSafetensors, type TensorSource } from "../checkpoint/write.js";
import type { MergeHooks } from "../config/options.js";
import type { Inputs } from "../inputs/open.js";
import type { Column } from "../merge/source.js";
import { expertOf, type MergeContext } from "../evaluate/baselines.js";
import type { PreparedTask } from "../evaluate/evaluate.js";
import {
  askExpert,
  keptMass,
  lessonExamples,
  lessonText,
  type LessonOptions,
  type SpokenTask,
  type Taught,
} from "../evaluate/lessons.js";
import type { InputHash } from "../report/card.js";
import { promptOf, targetsOf, type EncodedExample } from "../tasks/batches.js";

/** What lessons depend on beside examples and options. */
export type LessonInputs = Pick<Inputs, "engine" | "hashes" | "columns">;

/** What a column is made of: models by their files, and of a merge of several, what each counts for in every tensor. */
const columnIdentity = ({ terms }: Column, names: readonly string[], hashes: readonly InputHash[]) =>
  terms.map(({ member, coefficient }) => ({
    files: hashes.filter(({ role }) => role === member.label),
    coefficients: names.map(coefficient),
  }));

const list = (name: string, dtype: "I32" | "F32", values: Int32Array | Float32Array): TensorSource => ({
  name,
  dtype,
  shape: [values.length],
  bytes: () => Promise.resolve(new Uint8Array(values.buffer, values.byteOffset, values.byteLength)),
});

/** Lists one after the other. */
const joined = <T extends Int32Array | Float32Array>(lists: readonly T[], made: (length: number) => T): T => {
  const out = made(lists.reduce((sum, { length }) => sum + length, 0));
  let start = 0;
  for (const one of lists) {
    out.set(one, start);
    start += one.length;
  }
  return out;
};

async function writeTaught(path: string, taught: readonly Taught[]): Promise<void> {
  const ints = (lists: readonly Int32Array[]) => joined(lists, (length) => new Int32Array(length));
  const floats = (lists: readonly Float32Array[]) => joined(lists, (length) => new Float32Array(length));
  const targets = taught.map(({ row }) => Int32Array.from(targetsOf(row)));
  await writeSafetensors(path, [
    list("targets", "I32", ints(targets)),
    list(
      "lengths",
      "I32",
      Int32Array.from(targets, ({ length }) => length),
    ),
    list("ids", "I32", ints(taught.map(({ teacher }) => teacher.ids))),
    list("log_p", "F32", floats(taught.map(({ teacher }) => teacher.logP))),
    list("rest", "F32", floats(taught.map(({ teacher }) => teacher.rest))),
  ]);
}

async function readTaught(
  path: string,
  examples: readonly EncodedExample[],
  options: LessonOptions,
): Promise<Taught[]> {
  const file = await openSafetensors(path);
  try {
    const bytes = async (name: string) => (await file.read(name)).bytes.slice().buffer;
    const [targets, lengths] = [
      new Int32Array(await bytes("targets")),
      new Int32Array(await bytes("lengths")),
    ];
    const [ids, logP] = [new Int32Array(await bytes("ids")), new Float32Array(await bytes("log_p"))];
    const rest = new Float32Array(await bytes("rest"));
    const count = ids.length / rest.length;
    let start = 0;
    return examples.map((example, n) => {
      const [from, to] = [start, (start += i32(lengths, n))];
      return {
        row: lessonText(example, [...targets.subarray(from, to)], options),
        teacher: {
          ids: ids.subarray(from * count, to * count),
          logP: logP.subarray(from * count, to * count),
          rest: rest.subarray(from, to),
        },
      };
    });
  } finally {
    await file.close();
  }
}

/** A hash of all that a lesson depends on. */
export function lessonKey(
  place: MergeContext,
  task: SpokenTask,
  examples: readonly EncodedExample[],
  { engine, hashes, columns, ...options }: LessonInputs & LessonOptions,
): string {
  const { tensors, packing, basePacking } = place.vectors;
  return digest({
    format: 2,
    engine,
    // What is rounded speaks otherwise.
    packing,
    basePacking,
    base: hashes.filter(({ role }) => role === "base"),
    expert: columnIdentity(at(columns, expertOf(place, task)), [...tensors.keys()], hashes),
    examples: examples.map((example) => ({ rows: example.rows, asks: promptOf(example).ids })),
    most: task.generation.most,
    distilOn: options.distilOn,
    temperature: options.temperature,
    teacherTokens: options.teacherTokens,
  });
}

/** A task's lesson: made, or found in the cache. */
async function taughtOf(
  place: MergeContext,
  task: SpokenTask,
  examples: readonly EncodedExample[],
  options: LessonInputs & LessonOptions,
): Promise<Taught[]> {
  const folder = join(cacheFolder(), "lessons");
  const path = join(folder, `${lessonKey(place, task, examples, options)}.safetensors`);
  if (existsSync(path)) return readTaught(path, examples, options);
  const taught = await askExpert(place, task, examples, options);
  await mkdir(folder, { recursive: true });
  await writeTaught(path, taught);
  return taught;
}

const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;

/**
 * Tasks that are answered by texts, each with what its expert says of its examples, token by token. One expert speaks
 * at a time. Answers are not looked at where experts speak for themselves.
 */
export async function withLessons(
  place: MergeContext,
  tasks: readonly SpokenTask[],
  { split, ...inputs }: LessonInputs & LessonOptions & { readonly split: "validation" | "test" },
  hooks: Pick<MergeHooks, "note" | "progress">,
): Promise<PreparedTask[]> {
  const found: PreparedTask[] = [];
  for (const [i, task] of tasks.entries()) {
    hooks.progress("what the experts say", i, tasks.length);
    const taught = await taughtOf(place, task, task[split], inputs);
    const { mean, least } = keptMass(taught);
    const tokens = taught.reduce((sum, { teacher }) => sum + teacher.rest.length, 0);
    hooks.note(
      `${task.id}: its expert speaks of ${taught.length} texts, ${tokens} tokens; the ${inputs.teacherTokens} ` +
        `likeliest hold ${percent(mean)} of it (the least ${percent(least)})`,
    );
    found.push({ ...task, lessons: lessonExamples(taught, inputs) });
  }
  return found;
}
