/** What stands beside a model's weights and travels with them: tokenizer, processor, code, chat templates, modules. */
import { createReadStream } from "node:fs";
import { readdir, realpath, stat } from "node:fs/promises";
import { join, resolve, sep } from "node:path";
import { atomicFile } from "./files.js";

/** Files that stay: weights in any form, what a training left, what a result has of its own. */
const left = [
  /\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|onnx|onnx_data|gguf|ggml|ot|tflite|mlmodel|npz|tmp|log|lock)$/i,
  /\.index\.json$/,
  /^(README\.md|config\.json|adapter_config\.json|optimizer.*|scheduler.*|rng_state.*|trainer_state\.json)$/,
  /^(training_args.*|(?:all|train|eval|test|predict)_results\.json|events\.out\..*)$/,
  /^(quantize_config|hf_quant_config)\.json$/,
  // What train-merge writes, where a base is a result of its own.
  /^(state|results|run|merge|compare|finetune|reproduce|tree|node|plan|similarity)\.json$/,
  /^(tree|similarity|coefficients)\.(svg|png|csv|json)$/,
  /^(report\.html|training\.jsonl|table\.md|mergekit_config\.yml)$/,
  /^\./,
];

/** Folders whose files stay. */
const foldersLeft =
  "checkpoint-\\d+|global_step\\d+|runs|logs|wandb|tensorboard|original|onnx|openvino|coreml|flax|tf|heads|tasks|" +
  "nodes|methods|models|treated|products|__pycache__|\\..*";
const isLeftFolder = new RegExp(`^(${foldersLeft})$`);

/** A module of sentence-transformers: it has a config of its own, and sometimes weights that the model has not. */
const moduleFolder = /^\d+_\w+$/;

/** Whether a file of a model's folder travels. @param path within that folder, with slashes */
export function travels(path: string): boolean {
  const parts = path.split("/");
  const name = parts.pop() ?? "";
  if (parts.some((folder) => isLeftFolder.test(folder))) return false;
  const [module] = parts;
  if (parts.length === 1 && module !== undefined && moduleFolder.test(module)) return !name.startsWith(".");
  return !left.some((pattern) => pattern.test(name));
}

/** Folders that files may come from: the model's own, and of a hub's snapshot, where the cache keeps what it links. */
async function homesOf(folder: string): Promise<string[]> {
  const real = await realpath(folder);
  const isSnapshot = /[\\/]snapshots[\\/][0-9a-f]{40}$/.test(real);
  if (!isSnapshot) return [real];
  return [real, resolve(real, "..", "..", "blobs")];
}

/** Files below a folder that travel, as paths within it. */
async function companionsIn(folder: string, homes: readonly string[], within = ""): Promise<string[]> {
  const found: string[] = [];
  const entries = await readdir(join(folder, within), { withFileTypes: true });
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = within === "" ? entry.name : `${within}/${entry.name}`;
    // A link to a folder is not entered: it may lead round in a circle.
    if (entry.isDirectory() && !isLeftFolder.test(entry.name))
      found.push(...(await companionsIn(folder, homes, path)));
    if (entry.isDirectory() || !travels(path)) continue;
    const real = await realpath(join(folder, path)).catch(() => "");
    if (homes.some((home) => real.startsWith(home + sep)) && (await stat(real)).isFile()) found.push(path);
  }
  return found;
}

/**
 * Copies what stands beside a model's weights. A link that leaves the folder (or its hub cache) is not followed.
 * @param stays what is left where it is
 */
export async function copyCompanions(
  from: string,
  to: string,
  stays: (path: string) => boolean = () => false,
): Promise<void> {
  const found = await companionsIn(from, await homesOf(from));
  for (const path of found.filter((one) => !stays(one)))
    await atomicFile(join(to, path), async (write) => {
      const stream: AsyncIterable<Buffer> = createReadStream(join(from, path), { highWaterMark: 1 << 20 });
      for await (const chunk of stream) await write(chunk);
    });
}
