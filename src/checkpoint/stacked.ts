import { at } from "../at.js";
import { toFloat32, type HostTensor } from "../tensor/dtype.js";
import type { AdaptedCheckpoint } from "./adapted.js";
import { hostTensor } from "./overlay.js";

/** A module's LoRA factors of all adapters, side by side: any sum of their products is B diag(d) A. */
export interface StackedModule {
  /** As PEFT calls it. */
  readonly module: string;
  /** The base's name of its weight. */
  readonly weight: string;
  readonly rank: number;
  /** [rank, in] */
  readonly a: HostTensor;
  /** [out, rank] */
  readonly b: HostTensor;
  /**
   * What d is for each adapter alone, [rank]: its scale in its own part, zeros elsewhere; undefined
   * where it has none.
   */
  readonly gains: readonly (Float32Array | undefined)[];
}

/** One adapter's factors of a module. */
interface LoraFactors {
  readonly module: string;
  readonly a: Float32Array;
  readonly b: Float32Array;
  readonly rank: number;
  readonly scale: number;
}

/** An adapter's factors of a weight; undefined where it has none. */
async function readFactors(
  adapted: AdaptedCheckpoint | undefined,
  weight: string,
): Promise<LoraFactors | undefined> {
  const part = adapted?.adapted.get(weight);
  if (!adapted || part?.kind !== "lora") return undefined;
  const { file } = adapted.adapter;
  const [a, b] = [toFloat32(await file.read(part.a)), toFloat32(await file.read(part.b))];
  return { module: part.module, a, b, rank: part.rank, scale: part.scale };
}

/** A module that some LoRA adapter adapts, with every adapter's part of it. */
async function stackModule(
  weight: string,
  adapters: readonly (AdaptedCheckpoint | undefined)[],
): Promise<StackedModule> {
  const found = await Promise.all(adapters.map((one) => readFactors(one, weight)));
  const there = found.filter((one) => one !== undefined);
  const { module, ...first } = at(there, 0);
  const rank = there.reduce((sum, one) => sum + one.rank, 0);
  const [input, out] = [first.a.length / first.rank, first.b.length / first.rank];
  const [a, b] = [new Float32Array(rank * input), new Float32Array(out * rank)];
  let from = 0;
  const gains = found.map((one) => {
    if (!one) return undefined;
    a.set(one.a, from * input);
    for (let o = 0; o < out; o++) b.set(one.b.subarray(o * one.rank, (o + 1) * one.rank), o * rank + from);
    const gain = new Float32Array(rank).fill(one.scale, from, from + one.rank);
    from += one.rank;
    return gain;
  });
  return { module, weight, rank, a: hostTensor(a, [rank, input]), b: hostTensor(b, [out, rank]), gains };
}

/**
 * Every module that some of the adapters adapt, in the order of the base's file. Held: all factors,
 * once more in float32.
 */
export async function stackLora(
  names: readonly string[],
  adapters: readonly (AdaptedCheckpoint | undefined)[],
): Promise<StackedModule[]> {
  const out: StackedModule[] = [];
  for (const name of names)
    if (adapters.some((one) => one?.adapted.get(name)?.kind === "lora"))
      out.push(await stackModule(name, adapters));
  return out;
}
