/** Weights that were packed into few bits: their numbers cannot be averaged. */
import { UserError } from "../errors.js";
import type { TensorEntry } from "./safetensors.js";
import { isRecord } from "./files.js";

/** What a quantiser leaves beside or in place of a weight, by its name. */
const signs: readonly (readonly [sign: RegExp, method: string])[] = [
  [/\.(qweight|qzeros|g_idx)$/, "GPTQ or AWQ"],
  [/\.(absmax|quant_map|nested_absmax|quant_state\.[\w.]+|SCB|weight_format)$/, "bitsandbytes"],
  [/(\.weight|_proj)_scale(_inv|_2)?$/, "FP8"],
  [/\.(weight_packed|weight_zero_point)$/, "compressed-tensors"],
  [/\.(gate_up_proj|down_proj)_(blocks|scales)$/, "MXFP4"],
];

/** A config that says nothing of a quantiser. */
export function unquantised(config: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const { quantization_config: _q, compression_config: _c, ...rest } = config;
  return rest;
}

/** The quantiser that a config names; undefined where it names none. */
export function methodIn(config: Readonly<Record<string, unknown>>): string | undefined {
  const own = config["quantization_config"] ?? config["compression_config"];
  if (isRecord(own)) {
    const names = ["quant_method", "quant_algo", "format"].map((key) => own[key]);
    return names.find((name) => typeof name === "string") ?? "its quantization_config does not say how";
  }
  for (const key of ["text_config", "vision_config"]) {
    const inner = config[key];
    const found = isRecord(inner) ? methodIn(inner) : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The tensor by which quantised weights are known where no config says so. */
function signIn(
  tensors: Iterable<readonly [name: string, entry: TensorEntry]>,
): { readonly name: string; readonly method: string } | undefined {
  for (const [name, { dtype, shape }] of tensors) {
    const sign = signs.find(([pattern]) => pattern.test(name));
    if (sign) return { name, method: sign[1] };
    const isWeight = name.endsWith(".weight") && shape.length > 1;
    const isSmall = (dtype === "F8_E4M3" || dtype === "F8_E5M2") && shape.length > 1;
    if (isSmall || (isWeight && (dtype === "I8" || dtype === "U8"))) return { name, method: dtype };
  }
  return undefined;
}

/** What `--dequantise` may do for it (checkpoint/dequantise.ts), by how a model is quantised. */
function readableText(how: string): string {
  if (/fp8|f8_|bitsandbytes/i.test(how)) return "; or --dequantise reads it so";
  return "";
}

/** @throws UserError where the weights of a checkpoint are quantised, naming how, and the way out */
export function refuseQuantised(
  folder: string,
  config: Readonly<Record<string, unknown>>,
  tensors: Iterable<readonly [name: string, entry: TensorEntry]>,
): void {
  const [method, sign] = [methodIn(config), signIn(tensors)];
  if (method === undefined && !sign) return;
  const how = method ?? `${sign?.method}: "${sign?.name}"`;
  throw new UserError(
    `${folder}: its weights are quantised (${how}), and packed weights cannot be merged; give the model as it was ` +
      "before, or load it in transformers, call dequantize() and save_pretrained, and give that folder" +
      readableText(`${method} ${sign?.method}`),
  );
}
