import seedrandom from "seedrandom";
import type { EngineName } from "../backend/index.js";
import { UserError } from "../errors.js";
import { isNoLinearLayer, type AdapterModules, type ShapedAdapterModule } from "../adapter-modules.js";
import type { HeadNames, Model } from "../models/types.js";
import type { Batch, EncodedExample } from "../tasks/batches.js";
import type { DataFiles } from "../tasks/files.js";
import type { Task } from "../tasks/registry.js";

export interface FinetuneOptions {
  readonly base: string;
  /** One: an expert. Several: one model of all of them, with a head each. */
  readonly tasks: readonly string[];
  readonly data: string;
  readonly out: string;
  readonly how: "full" | "lora" | "ia3";
  readonly rank: number;
  readonly alpha: number;
  readonly epochs: number;
  readonly lr: number;
  readonly weightDecay: number;
  readonly batchSize: number;
  readonly microBatch: number;
  /** Examples of each training set that are used, drawn by the seed; all without. */
  readonly most?: number | undefined;
  readonly maxLength: number;
  readonly prompts?: string | undefined;
  readonly seed: number;
  /** Draws the order of the examples alone (default: the seed does). */
  readonly order?: number | undefined;
  readonly backend: EngineName | "auto";
  readonly resume: boolean;
}

/** A task as it is trained on. */
export interface TrainingTask {
  readonly task: Task;
  readonly sources: readonly DataFiles[];
  readonly fit: readonly EncodedExample[];
  readonly judge: readonly EncodedExample[];
  readonly isChoice: boolean;
  readonly prefix: string;
  batch(step: number): Batch;
  readonly batches: number;
}

/** Numbers that a tensor starts from. */
export interface Start {
  readonly shape: number[];
  readonly values: Float32Array;
}

/** Normal numbers of a deviation, by seed and name: the same on every engine. */
function normal(size: number, deviation: number, seed: string): Float32Array {
  const random = seedrandom(seed);
  return Float32Array.from(
    { length: size },
    () => deviation * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()),
  );
}

/** A head's own layer: it is trained whole, with the head. */
const isPooler = (module: string): boolean => /(^|\.)pooler\.dense$/.test(module);

/** Linear layers in a model's blocks that adapters may stand beside. */
const linearModules = (model: Model): { module: string; out: number; input: number }[] =>
  [...model.parameters].flatMap(([name, shape]) => {
    const module = name.replace(/\.weight$/, "");
    if (!name.endsWith(".weight") || shape.length !== 2 || isNoLinearLayer(module) || isPooler(module))
      return [];
    return [
      model.transposed?.has(module)
        ? { module, out: shape[1]!, input: shape[0]! }
        : { module, out: shape[0]!, input: shape[1]! },
    ];
  });
/** (IA)³: what comes out of keys and values, what goes into the second layer of a feed-forward (Liu et al. 2022). */
const scaledOut = /(^|[._])(key|value|k|v|k_proj|v_proj|c_attn)$/;
const scaledIn = /(^|\.)(DenseReluDense\.wo|down_proj|fc2|mlp\.c_proj|\d+\.output\.dense)$/;

/** Which side of a linear layer (IA)³ scales: what comes out, what goes in, or neither. */
function scaledSide(module: string): "out" | "in" | undefined {
  if (scaledOut.test(module)) return "out";
  return scaledIn.test(module) ? "in" : undefined;
}

/** What an adapter adds to a model: its modules, and where its tensors start. */
export function freshAdapter(
  model: Model,
  { how, rank, alpha, seed }: FinetuneOptions,
): { adapterModules: AdapterModules; start: Map<string, Start>; fixed: Map<string, Start> } {
  const adapterModules = new Map<string, ShapedAdapterModule>();
  const [start, fixed] = [new Map<string, Start>(), new Map<string, Start>()];
  for (const { module, out, input } of how === "full" ? [] : linearModules(model)) {
    if (how === "lora") {
      const [a, b, d] = [`${module}.lora_A`, `${module}.lora_B`, `${module}.lora_d`];
      adapterModules.set(module, {
        lora: true,
        shapes: [
          [a, [rank, input]],
          [b, [out, rank]],
          [d, [rank]],
        ],
      });
      // PEFT's: uniform in ±1/√in, and nothing.
      const random = seedrandom(`${seed}/${a}`);
      start.set(a, {
        shape: [rank, input],
        values: Float32Array.from({ length: rank * input }, () => (2 * random() - 1) / Math.sqrt(input)),
      });
      start.set(b, { shape: [out, rank], values: new Float32Array(out * rank) });
      fixed.set(d, { shape: [rank], values: new Float32Array(rank).fill(alpha / rank) });
    } else {
      const along = scaledSide(module);
      if (!along) continue;
      const size = along === "out" ? out : input;
      adapterModules.set(module, { ia3: along, shapes: [[`${module}.ia3_l`, [size]]] });
      start.set(`${module}.ia3_l`, { shape: [size], values: new Float32Array(size).fill(1) });
    }
  }
  if (how !== "full" && adapterModules.size === 0)
    throw new UserError(`--${how}: this model has no linear layers that such an adapter stands beside`);
  return { adapterModules, start, fixed };
}

/** A head of small random numbers, in a model's own form. */
export function freshHead(
  names: HeadNames,
  prefix: string,
  outputs: number,
  width: number,
  seed: number,
): Map<string, Start> {
  const out = new Map([
    [
      `${prefix}weight`,
      { shape: [outputs, width], values: normal(outputs * width, 0.02, `${seed}/${prefix}`) },
    ],
  ]);
  if (names.bias !== undefined)
    out.set(`${prefix}bias`, { shape: [outputs], values: new Float32Array(outputs) });
  if (names.dense !== undefined) {
    out.set(`${prefix}dense.weight`, {
      shape: [width, width],
      values: normal(width * width, 0.02, `${seed}/${prefix}dense`),
    });
    out.set(`${prefix}dense.bias`, { shape: [width], values: new Float32Array(width) });
  }
  return out;
}
