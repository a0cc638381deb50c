/** Models of a few numbers, and merges of them. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { findMethod } from "../../src/methods/index.js";
import { mergeByMergekitFile } from "../../src/mergers/mergekit-file.js";
import { mergeFolders, type ModelsMerge } from "../../src/mergers/models.js";
import { fromFloat32, toFloat32, type DType } from "../../src/tensor/dtype.js";
import { temporaryFolder } from "../helpers.js";

export const root = await temporaryFolder();
let made = 0;
export const fresh = (name: string): string => join(root, `${made++}-${name}`);

export type Tensor =
  | readonly [shape: number[], ...values: number[]]
  | { dtype: DType; shape: number[]; bytes: Uint8Array };
export type Tensors = Readonly<Record<string, Tensor>>;

export function bytesOf(tensor: Tensor): { dtype: DType; shape: number[]; bytes: Uint8Array } {
  if (!Array.isArray(tensor)) return tensor as { dtype: DType; shape: number[]; bytes: Uint8Array };
  const [shape, ...values] = tensor as [number[], ...number[]];
  return { dtype: "F32", shape, bytes: fromFloat32(Float32Array.from(values), "F32") };
}

/** Writes a safetensors file byte by byte. */
export async function weights(path: string, tensors: Tensors): Promise<void> {
  const header: Record<string, object> = {};
  const data: Uint8Array[] = [];
  let start = 0;
  for (const [name, tensor] of Object.entries(tensors)) {
    const { dtype, shape, bytes } = bytesOf(tensor);
    header[name] = { dtype, shape, data_offsets: [start, start + bytes.length] };
    start += bytes.length;
    data.push(bytes);
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(json.length), true);
  await writeFile(path, Buffer.concat([length, json, ...data]));
}

export const llama = { model_type: "llama", architectures: ["LlamaForCausalLM"], hidden_size: 2 };

/** A model folder. */
export async function model(name: string, tensors: Tensors, config: object = llama): Promise<string> {
  const folder = fresh(name);
  await mkdir(folder, { recursive: true });
  await weights(join(folder, "model.safetensors"), tensors);
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  return folder;
}

/** A LoRA folder. */
export async function adapter(name: string, tensors: Tensors, config: object = {}): Promise<string> {
  const folder = fresh(name);
  await mkdir(folder, { recursive: true });
  const own = Object.fromEntries(Object.entries(tensors).map(([key, t]) => [`base_model.model.${key}`, t]));
  await weights(join(folder, "adapter_model.safetensors"), own);
  const plain = { peft_type: "LORA", r: 1, lora_alpha: 1, target_modules: ["q"], task_type: "CAUSAL_LM" };
  await writeFile(join(folder, "adapter_config.json"), JSON.stringify({ ...plain, ...config }));
  return folder;
}

export interface Merged {
  readonly out: string;
  readonly notes: string[];
  tensors(file?: string): Promise<Record<string, number[]>>;
  json(file: string): Promise<Record<string, unknown>>;
}

export function resultOf(out: string, notes: string[]): Merged {
  return {
    out,
    notes,
    async tensors(file = "model.safetensors") {
      const opened = await openSafetensors(join(out, file));
      const found: Record<string, number[]> = {};
      for (const name of opened.entries.keys()) found[name] = [...toFloat32(await opened.read(name))];
      await opened.close();
      return found;
    },
    json: async (file) => JSON.parse(await readFile(join(out, file), "utf8")) as Record<string, unknown>,
  };
}

export async function merge(
  models: readonly string[],
  { method = "task-arithmetic", ...options }: Partial<Omit<ModelsMerge, "method">> & { method?: string } = {},
): Promise<Merged> {
  const out = fresh("out");
  const notes: string[] = [];
  const hooks = { note: (text: string) => void notes.push(text), progress() {}, stopping: () => false };
  const given = method === "task-arithmetic" ? { lambda: 1 } : {};
  await mergeFolders(
    { method: findMethod(method), given, models, out, dtype: "auto", shardSize: 1e9, threads: 0, ...options },
    hooks,
  );
  return resultOf(out, notes);
}

/** Runs a mergekit file. */
export async function byFile(text: string, options: object = {}): Promise<Merged> {
  const [path, out] = [fresh("file.yml"), fresh("out")];
  await writeFile(path, text);
  const notes: string[] = [];
  const hooks = { note: (line: string) => void notes.push(line), progress() {}, stopping: () => false };
  await mergeByMergekitFile(path, { out, shardSize: 1e9, threads: 0, seed: 0, ...options }, hooks);
  return resultOf(out, notes);
}

/** A mergekit file that takes the mean of two models. */
export const linear = (a: string, b: string): string =>
  "merge_method: linear\n" +
  `models: [{model: ${a}, parameters: {weight: 1}}, {model: ${b}, parameters: {weight: 1}}]`;

/** Weights of a small model. */
export const body = (x: number): Tensors => ({
  "embed.weight": [[2, 2], x, x, x, x],
  "layers.0.q.weight": [[2], x, 2 * x],
});
export const under = (prefix: string, tensors: Tensors): Tensors =>
  Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [prefix + name, tensor]));
export const expected = (x: number, prefix = ""): Record<string, number[]> => ({
  [`${prefix}embed.weight`]: [x, x, x, x],
  [`${prefix}layers.0.q.weight`]: [x, 2 * x],
});
