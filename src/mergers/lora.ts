/** LoRA adapters merged into one: side by side, each part of the rank with a factor of its own. */
import { join } from "node:path";
import { at, f32, f64 } from "../at.js";
import { adapterWeightsName } from "../checkpoint/adapter.js";
import type { AdaptedCheckpoint } from "../checkpoint/adapted.js";
import type { Checkpoint } from "../checkpoint/folder.js";
import { hostTensor } from "../checkpoint/overlay.js";
import { stackLora, type StackedModule } from "../checkpoint/stacked.js";
import { refuseWorthless } from "../checkpoint/numbers.js";
import { writeSafetensors, type TensorSource } from "../checkpoint/write.js";
import { readerFor } from "../methods/pipeline.js";
import type { Method, TensorReader, ParameterValues } from "../methods/types.js";
import { fromFloat32, toFloat32, type FloatDType, type HostTensor } from "../tensor/dtype.js";
import { writeAdapterConfig } from "./adapter-config.js";

/** One LoRA module of the result: B A is what is added to the weight. A [rank, in], B [out, rank]. */
export interface LoraModule {
  readonly module: string;
  readonly rank: number;
  readonly a: HostTensor;
  readonly b: HostTensor;
}

/** Writes a PEFT LoRA folder. α is the rank, so that the scale is 1. */
export async function writeLora(
  out: string,
  modules: readonly LoraModule[],
  first: AdaptedCheckpoint,
  { dtype, saved = [] }: Pick<AdapterResult, "dtype" | "saved">,
): Promise<void> {
  const ranks = new Map(modules.map(({ module, rank }) => [module, rank]));
  const common = Math.max(...ranks.values());
  const odd = Object.fromEntries([...ranks].filter(([, rank]) => rank !== common));
  const source = (name: string, tensor: HostTensor): TensorSource => ({
    name: `base_model.model.${name}.weight`,
    dtype,
    shape: tensor.shape,
    async bytes() {
      const values = toFloat32(tensor);
      refuseWorthless(name, dtype, values);
      return fromFloat32(values, dtype);
    },
  });
  await writeSafetensors(join(out, adapterWeightsName), [
    ...modules.flatMap(({ module, a, b }) => [source(`${module}.lora_A`, a), source(`${module}.lora_B`, b)]),
    ...saved,
  ]);
  await writeAdapterConfig(out, first, saved.length > 0, {
    r: common,
    lora_alpha: common,
    rank_pattern: odd,
    alpha_pattern: odd,
    use_rslora: false,
    init_lora_weights: true,
    exclude_modules: null,
    layers_to_transform: null,
    layers_pattern: null,
    bias: "none",
    inference_mode: true,
    target_modules: [...ranks.keys()],
  });
}

/** B diag(d) A as LoRA: d goes into B, and what is 0 in d is left out. */
function withGain({ module, rank, a, b }: StackedModule, d: Float64Array): LoraModule {
  const kept = [...d.keys()].filter((q) => d[q] !== 0);
  // A module that nothing is left of keeps one part: PEFT knows no rank 0.
  const parts = kept.length ? kept : [0];
  const [fullA, fullB] = [toFloat32(a), toFloat32(b)];
  const [input, out] = [fullA.length / rank, fullB.length / rank];
  const newA = new Float32Array(parts.length * input);
  const newB = new Float32Array(out * parts.length);
  for (const [i, q] of parts.entries()) {
    const gain = f64(d, q);
    newA.set(fullA.subarray(q * input, (q + 1) * input), i * input);
    for (let o = 0; o < out; o++) newB[o * parts.length + i] = f32(fullB, o * rank + q) * gain;
  }
  return {
    module,
    rank: parts.length,
    a: hostTensor(newA, [parts.length, input]),
    b: hostTensor(newB, [out, parts.length]),
  };
}

/** An adapter that is written from others. */
export interface AdapterResult {
  readonly out: string;
  /** What the adapters belong to. */
  readonly base: Checkpoint;
  readonly adapters: readonly AdaptedCheckpoint[];
  readonly dtype: FloatDType;
  /** What stands in it whole, as PEFT names it. */
  readonly saved?: readonly TensorSource[] | undefined;
}

/** Writes LoRA adapters side by side as one: nothing is lost. @param gainOf factors of a module's rank, [rank] */
async function writeStacked(
  { out, base, adapters, ...result }: AdapterResult,
  gainOf: (module: StackedModule) => Float64Array,
): Promise<void> {
  const stacked = await stackLora(base.names, adapters);
  const modules = stacked.map((module) => withGain(module, gainOf(module)));
  await writeLora(out, modules, at(adapters, 0), result);
}

/** Writes Σ c_i · adapter_i as one LoRA adapter. @param coefficients of a weight, an adapter each */
export function writeLinearLora(
  result: AdapterResult,
  coefficients: (weight: string) => Float64Array,
): Promise<void> {
  const gainOf = ({ weight, rank, gains }: StackedModule): Float64Array => {
    const c = coefficients(weight);
    const d = new Float64Array(rank);
    for (const [i, gain] of gains.entries()) {
      const factor = f64(c, i);
      gain?.forEach((g, q) => (d[q] = f64(d, q) + factor * g));
    }
    return d;
  };
  return writeStacked(result, gainOf);
}

/** A method on vectors in memory, one part, without a base's own entries. */
function mergeVectors(
  { method, values, labels }: MethodUse,
  name: string,
  inputs: readonly Float32Array[],
): Float64Array {
  const size = at(inputs, 0).length;
  const reader: TensorReader = {
    name,
    labels,
    rows: 1,
    width: size,
    *parts() {
      yield { start: 0, base: new Float32Array(size), inputs: inputs.map((x) => Float32Array.from(x)) };
    },
  };
  const treated = readerFor(method, values, reader, { found: [] });
  const merge = method.merge(treated, values, undefined);
  const out = new Float32Array(size);
  for (const part of treated.parts()) merge(part, out);
  return Float64Array.from(out);
}

/** A method with its parameters, and what its inputs are called. */
export interface MethodUse {
  readonly method: Method;
  readonly values: ParameterValues;
  readonly labels: readonly string[];
}

/** Merges LoRA adapters with a method that weights whole inputs. */
export function mergeStackedLora(result: AdapterResult, use: MethodUse): Promise<void> {
  const gainOf = ({ weight, rank, gains }: StackedModule): Float64Array =>
    mergeVectors(
      use,
      weight,
      gains.map((gain) => gain ?? new Float32Array(rank)),
    );
  return writeStacked(result, gainOf);
}
