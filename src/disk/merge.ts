import { at } from "../at.js";
import { reserveWeights, type ReservedWeights } from "../checkpoint/write.js";
import { findMethod } from "../methods/index.js";
import { surveyPasses } from "../methods/pipeline.js";
import type { MergePlan } from "./plan.js";
import { openPool, type Pool } from "./pool.js";
import { stageValues, type DiskJob } from "./work.js";
import { checkPlanned } from "./written.js";

export interface DiskOptions {
  /** What the file is called, where all goes into one (default: as Hugging Face calls a model's). */
  readonly file?: string | undefined;
  /** Largest weight file. */
  readonly shardBytes: number;
  /** Threads (default: the machine's cores). */
  readonly threads?: number | undefined;
  readonly progress?: ((phase: string, done: number, of: number) => void) | undefined;
  readonly stopping?: (() => boolean) | undefined;
}

/** What a method's passes over all tensors come to, stage by stage. */
async function survey(pool: Pool, plan: MergePlan, { progress, stopping }: DiskOptions): Promise<unknown[]> {
  const method = findMethod(plan.method);
  const values = stageValues(plan.tensors);
  const found: unknown[] = [];
  if (plan.tensors.every(({ copy }) => copy)) return found;
  const passes = surveyPasses(method, values);
  for (const [number, { stage, pass }] of passes.entries()) {
    const states = await pool.run(
      { ...plan, found, pass: number },
      (done, of) => progress?.(`${plan.method}: reading ${number + 1} of ${passes.length}`, done, of),
      stopping,
    );
    found[stage] = pass.join(states, values, found[stage]);
  }
  return found;
}

/**
 * Merges from disk to disk. Tensors are shared out among threads; a thread reads a part of every model,
 * merges it, and writes it where it belongs in files of their full size, which get their names when all
 * is there. Memory: for each thread, k + 2 parts of half a megabyte (at least a row) and what its
 * method keeps; RegMean holds its tensor whole. The files are looked at before they get their names: every header, and
 * of sums a sample of the numbers.
 * @returns the names of the weight files
 */
export async function mergeOnDisk(plan: MergePlan, folder: string, options: DiskOptions): Promise<string[]> {
  return at(await mergeEachOnDisk(plan, [folder], options), 0);
}

/** The same where every input has a result of its own, in a folder of its own: all are made in one going over. */
export async function mergeEachOnDisk(
  plan: MergePlan,
  folders: readonly string[],
  options: DiskOptions,
): Promise<string[][]> {
  const began = performance.now();
  const pool = openPool(options.threads);
  const results: ReservedWeights[] = [];
  try {
    const found = await survey(pool, plan, options);
    const shardBytes = options.file === undefined ? options.shardBytes : Infinity;
    for (const folder of folders)
      results.push(await reserveWeights(folder, plan.tensors, shardBytes, options.file));
    const job: DiskJob = { ...plan, found, slots: results.map(({ slots }) => slots) };
    // What is written goes to the disk while more is made.
    const flushing = setInterval(() => results.forEach(({ flush }) => flush()), 50);
    try {
      await pool.run(job, (done, of) => options.progress?.(plan.method, done, of), options.stopping);
    } finally {
      clearInterval(flushing);
    }
    for (const { slots } of results)
      await checkPlanned([...new Set(slots.map(({ path }) => path))], plan, began);
    const names: string[][] = [];
    for (const weights of results) names.push(await weights.commit());
    return names;
  } catch (error) {
    // Threads that are still at work must not write into what is removed.
    await pool.close();
    for (const weights of results) await weights.abort();
    throw error;
  } finally {
    await pool.close();
  }
}
