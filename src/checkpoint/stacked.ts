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

/** A module that some LoRA adapter adapts, with every adapter's part of it. */
async function stackModule(
  weight: string,
  adapters: readonly (AdaptedCheckpoint | undefined)[],
): Promise<StackedModule> {
  const parts = adapters.map((one) => one?.adapted.get(weight));
  const found = await Promise.all(
    parts.map(async (part, i) => {
      if (part?.kind !== "lora") return undefined;
      const { file } = adapters[i]!.adapter;
      return {
        a: toFloat32(await file.read(part.a)),
        b: toFloat32(await file.read(part.b)),
        rank: part.rank,
        scale: part.scale,
        module: part.module,
      };
    }),
  );
  const there = found.filter((one) => one !== undefined);
  const rank = there.reduce((sum, one) => sum + one.rank, 0);
  const [input, out] = [there[0]!.a.length / there[0]!.rank, there[0]!.b.length / there[0]!.rank];
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
  return {
    module: there[0]!.module,
    weight,
    rank,
    a: hostTensor(a, [rank, input]),
    b: hostTensor(b, [out, rank]),
    gains,
  };
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
