/** What stands beside a model's weights and travels with them: tokenizer, processor, code, chat templates, modules. */
import { createReadStream } from "node:fs";
import { readdir, realpath, stat } from "node:fs/promises";
import { join, resolve, sep } from "node:path";
import { atomicFile } from "../checkpoint/files.js";
import { finalFiles, fileNames } from "./files.js";

/** Files that are not copied: weights in any form, what a training left, what the result has of its own. */
const notCopied = [
  /\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|onnx|onnx_data|gguf|ggml|ot|tflite|mlmodel|npz|tmp|log|lock)$/i,
  /\.index\.json$/,
  /^(README\.md|config\.json|adapter_config\.json|optimizer.*|scheduler.*|rng_state.*|trainer_state\.json)$/,
  /^(training_args.*|all_results\.json|(?:train|eval|test|predict)_results\.json|events\.out\..*|quantize_config\.json)$/,
  // What train-merge writes, where a base is a result of its own.
  /^(state|results|run|merge|compare|finetune|reproduce|tree|node|plan|similarity)\.json$/,
  /^(tree|similarity|coefficients)\.(svg|png|csv|json)$/,
  /^\./,
];

/** Folders that are not looked into. */
const notEntered =
  /^(checkpoint-\d+|global_step\d+|runs|logs|wandb|original|onnx|openvino|coreml|flax|tf|heads|nodes|__pycache__|\..*)$/;

/** A module of sentence-transformers has its own config, and sometimes weights that are no part of the model. */
const moduleFolder = /^\d+_\w+$/;

/** Folders that files may come from: the model's own, and where the hub's cache keeps what its links name. */
async function homesOf(folder: string): Promise<string[]> {
  const real = await realpath(folder);
  return [real, resolve(real, "..", "..", "blobs")];
}

const liesIn = (path: string, homes: readonly string[]): boolean =>
  homes.some((home) => path === home || path.startsWith(home + sep));

/** Names of files below a folder that travel, as paths within it. */
async function companionsIn(folder: string, homes: readonly string[], within = ""): Promise<string[]> {
  const found: string[] = [];
  const own: readonly string[] = within === "" ? [...finalFiles, ...Object.values(fileNames)] : [];
  for (const name of (await readdir(join(folder, within))).sort()) {
    const path = join(within, name);
    const real = await realpath(join(folder, path)).catch(() => undefined);
    if (real === undefined || !liesIn(real, homes) || own.includes(name)) continue;
    const kind = await stat(real);
    if (kind.isDirectory() && !notEntered.test(name))
      found.push(...(await companionsIn(folder, homes, path)));
    const isConfig = within !== "" && (name === "config.json" || moduleFolder.test(within));
    const isLeft = notCopied.some((pattern) => pattern.test(name)) && !isConfig;
    if (kind.isFile() && !isLeft) found.push(path);
  }
  return found;
}

/** Copies what stands beside a model's weights. A link that leaves the folder (or its hub cache) is not followed. */
export async function copyCompanions(from: string, to: string): Promise<void> {
  for (const path of await companionsIn(from, await homesOf(from)))
    await atomicFile(join(to, path), async (write) => {
      const stream: AsyncIterable<Buffer> = createReadStream(join(from, path), { highWaterMark: 1 << 20 });
      for await (const chunk of stream) await write(chunk);
    });
}
