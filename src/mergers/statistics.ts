import { createHash } from "node:crypto";
import { at } from "../at.js";
import { UserError } from "../errors.js";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { cacheFolder } from "../backend/index.js";
import type { Member } from "../checkpoint/family.js";
import { openSafetensors, type Ref } from "../checkpoint/safetensors.js";
import { writeSafetensors, type TensorSource } from "../checkpoint/write.js";
import type { CompileOptions } from "../disk/compile.js";
import type { EncodedExample } from "../tasks/batches.js";
import type { PreparedTask } from "../evaluate/evaluate.js";
import type { Method } from "../methods/types.js";
import type { Model } from "../models/types.js";
import type { InputHash } from "../report/card.js";
import { fisherOf } from "../statistics/fisher.js";
import { gramsOf } from "../statistics/gram.js";
import { loadWeights } from "../statistics/weights.js";
import { fromFloat32 } from "../tensor/dtype.js";
import { digest } from "../checkpoint/files.js";
import type { MergeHooks } from "../config/options.js";

/** An expert and the task whose validation inputs its statistics are taken on. */
export interface Subject {
  readonly member: Member;
  readonly task: PreparedTask;
}

export interface StatisticsInputs {
  readonly model: Model;
  readonly subjects: readonly Subject[];
  readonly hashes: readonly InputHash[];
}

/** An example as plain data, its pixels among them. */
const written = ({ rows, kind: _kind, ...rest }: EncodedExample) => ({
  ...rest,
  rows: rows.map((row) => ({
    ...row,
    ...(row.patches && {
      patches: createHash("sha256").update(Buffer.from(row.patches().buffer)).digest("hex"),
    }),
  })),
});

/**
 * Writes an expert's statistics into the user's cache, or finds them there: their name is a hash of all
 * that they depend on.
 */
async function statisticsFile(
  kind: NonNullable<Method["needs"]>,
  { model, hashes }: StatisticsInputs,
  { member, task }: Subject,
  hooks: Pick<MergeHooks, "progress">,
): Promise<string> {
  const mine = hashes.filter(
    ({ role }) => role === member.label || role === "base" || role.startsWith(task.id),
  );
  // A head may have been made from the names of classes, which are in none of those files.
  const head = task.head && Array.from(await task.head.weight.data());
  const key = digest({
    format: 2,
    kind,
    task: task.id,
    hashes: mine,
    examples: task.validation.map(written),
    head,
  });
  const folder = join(cacheFolder(), "statistics");
  const path = join(folder, `${kind}-${key}.safetensors`);
  if (existsSync(path)) return path;
  await mkdir(folder, { recursive: true });
  if (kind === "fisher" && (task.kind === "generate" || task.kind === "match"))
    throw new UserError(
      `${task.id}: Fisher information is computed over classes or answers, and this task asks for ` +
        `${task.kind === "match" ? "vectors" : "a generated text"}; leave out the task or the method`,
    );
  const weights = await loadWeights(model, member);
  try {
    const onExample = (done: number, of: number) => hooks.progress(`${kind} of ${member.label}`, done, of);
    const isFisher = kind === "fisher";
    const found = isFisher
      ? await fisherOf(model, weights, task, onExample)
      : await gramsOf(model, weights, task.validation, onExample);
    const sources = [...found].map(([name, values]): TensorSource => {
      const size = Math.sqrt(values.length);
      const shape = isFisher ? [values.length] : [size, size];
      return { name, dtype: "F32", shape, bytes: async () => fromFloat32(values, "F32") };
    });
    await writeSafetensors(path, sources);
    return path;
  } finally {
    weights.dispose();
  }
}

/** Where a statistic lies, and its first axis. */
type SizedRef = Ref & { readonly size: number };

async function refsIn(path: string): Promise<Map<string, SizedRef>> {
  const file = await openSafetensors(path);
  await file.close();
  return new Map(
    [...file.entries].map(([name, { start, dtype, shape }]) => [
      name,
      { path, start, dtype, size: at(shape, 0) },
    ]),
  );
}

/** The statistics that a method needs, by tensor; undefined for a method that needs none. */
export async function statisticsFor(
  method: Method,
  inputs: StatisticsInputs,
  hooks: Pick<MergeHooks, "progress">,
): Promise<CompileOptions["statistics"]> {
  const { needs } = method;
  if (!needs) return undefined;
  const found: Map<string, SizedRef>[] = [];
  for (const subject of inputs.subjects)
    found.push(await refsIn(await statisticsFile(needs, inputs, subject, hooks)));
  return (name) => {
    const refs = found.map((one) => one.get(name)).filter((ref) => ref !== undefined);
    if (refs.length < found.length) return undefined;
    if (needs === "fisher") return { statistics: refs };
    return {
      statistics: refs,
      statisticSize: at(refs, 0).size,
      transposed: inputs.model.transposed?.has(name.replace(/\.weight$/, "")),
    };
  };
}
