import { tidy } from "@tensorflow/tfjs-core";
import { countMagnitudes, digitOfRank, magnitudeCounts, magnitudeOf } from "../merge/magnitudes.js";
import { unpacked } from "../merge/op.js";
import type { TaskVectors } from "../merge/vectors.js";
import { signSum, thresholdRank, tiesMean } from "../methods/ties.js";
import type { Score } from "../evaluate/evaluate.js";
import { joined } from "../tensor/joined.js";
import { evaluateFolder } from "./evaluate.js";
import type { Inputs } from "./inputs.js";
import type { MergeHooks, MergeOptions } from "./options.js";
import { writeHead, writeTensors } from "./write.js";

/** The authors' defaults without a search: the largest fifth is kept, λ = 1. */
const density = 0.2;

/** Every part of every changed tensor: its task vectors (zeros where an expert left it alone) in host memory. */
async function* deltaParts(vectors: TaskVectors, names: readonly string[]): AsyncGenerator<{ name: string; deltas: Float32Array[]; base: Float32Array }> {
  for await (const { tensor, base, deltas } of vectors.stream(names.map((name) => ({ name })))) {
    const stack = tidy(() => unpacked(deltas!));
    const values = (await stack.data()) as Float32Array;
    stack.dispose();
    const size = values.length / tensor.experts.length;
    yield {
      name: tensor.name, base: (await base.data()) as Float32Array,
      deltas: vectors.experts.map((_, column) => {
        const at = tensor.experts.indexOf(column);
        return at < 0 ? new Float32Array(size) : values.slice(at * size, (at + 1) * size);
      }),
    };
  }
}

/** Exact global thresholds of every expert and the majority sign, in three passes over the task vectors. */
async function tiesGlobals(vectors: TaskVectors, names: readonly string[]): Promise<{ thresholds: number[]; majority: number }> {
  // The authors' vector holds every tensor, those that nobody changed too: their zeros count.
  const size = [...vectors.tensors.values()].reduce((sum, { rows, width }) => sum + rows * width, 0);
  const count = async (uppers: readonly (number | undefined)[]) => {
    const all = vectors.experts.map((_, i) => magnitudeCounts(uppers[i]));
    for await (const { deltas } of deltaParts(vectors, names)) deltas.forEach((values, i) => countMagnitudes(all[i]!, values));
    return all;
  };
  const upper = (await count(vectors.experts.map(() => undefined))).map((counts) => digitOfRank(counts, thresholdRank(size, density)));
  const lower = await count(upper.map(({ digit }) => digit));
  const thresholds = upper.map(({ digit, rank }, i) => magnitudeOf(digit, digitOfRank(lower[i]!, rank).digit));
  let signs = 0;
  for await (const { deltas } of deltaParts(vectors, names)) signs += signSum(deltas, thresholds);
  return { thresholds, majority: Math.sign(signs) };
}

/** Merges with TIES over the tensors that anybody changed, writes the model with its heads, and measures it from there. */
export async function writeTies(folder: string, inputs: Inputs, options: MergeOptions, hooks: MergeHooks): Promise<Record<string, Score>> {
  const { family, head, heads, data, plan } = inputs;
  // Exact ones, whatever they are packed as for training.
  const vectors = inputs.vectors.fromFiles();
  const names = vectors.layers.flatMap((layer) => layer.names);
  hooks.progress("ties", 0, 1);
  const { thresholds, majority } = await tiesGlobals(vectors, names);
  await writeTensors(folder, family, head, vectors, async (name) => {
    const pieces: Float32Array[] = [];
    for await (const { deltas, base } of deltaParts(vectors, [name])) pieces.push(tiesMean(deltas, thresholds, majority).map((x, i) => x + base[i]!));
    return joined(pieces);
  }, options.dtype === "auto" ? undefined : options.dtype, options.shardSize);
  for (const member of heads) await writeHead(folder, member, head);
  const { scores } = await evaluateFolder({ ...options, folder, data, placement: plan.chosen });
  return scores;
}
