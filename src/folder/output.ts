import { createReadStream, existsSync } from "node:fs";
import { mkdir, readdir, readFile, realpath, rm } from "node:fs/promises";
import { join, relative } from "node:path";
import type { Member } from "../checkpoint/family.js";
import { atomicFile, editJson, readJson, writeText } from "../checkpoint/files.js";
import { removeWeights, writeSafetensors, type TensorSource } from "../checkpoint/write.js";
import { UserError } from "../errors.js";
import { headTensors } from "../models/head.js";
import type { HeadNames } from "../models/types.js";
import type { FloatDType } from "../tensor/dtype.js";

/** What a tokenizer may consist of. */
const tokenizerFiles = [
  "tokenizer.model",
  "spiece.model",
  "sentencepiece.bpe.model",
  "generation_config.json",
  "chat_template.jinja",
  "preprocessor_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "vocab.txt",
  "vocab.json",
  "merges.txt",
  "added_tokens.json",
];
/** What a run writes at its end; a new run in the same folder begins without it. */
const finalFiles = [
  "results.json",
  "README.md",
  "run.json",
  "coefficients.csv",
  "coefficients.json",
  "coefficients.svg",
  "coefficients.png",
  "report.html",
  "tensorboard",
  "heads",
  "merge.json",
  "adapter_config.json",
];

/** A folder is ours where results.json or state.json in it are of our making: only then may a run write over it. */
async function isOurs(out: string): Promise<boolean> {
  const has = async (file: string, keys: string[]) => {
    const content = await readJson(join(out, file)).catch(() => undefined);
    return typeof content === "object" && content !== null && keys.every((key) => key in content);
  };
  return (
    (await has("results.json", ["rows", "search", "settings"])) ||
    (await has("state.json", ["identity", "raw", "moments"])) ||
    (await has("node.json", ["identity", "children"])) ||
    (await has("tree.json", ["leaves", "nodes"])) ||
    (await has("similarity.json", ["identity", "whole"])) ||
    (await has("merge.json", ["version", "method", "models"])) ||
    (await has("compare.json", ["version", "methods"])) ||
    (await has("finetune.json", ["identity"])) ||
    (await has("reproduce.json", ["version", "id"]))
  );
}

/** What a write that was cut off by a kill may have left. */
const leftover = /\.[0-9a-f]{8}\.tmp$/;

/**
 * Makes the output folder, or tidies up the one that an earlier run left.
 * @param inputs folders that are read and must not be written to
 * @throws UserError where it holds something that train-merge did not write
 */
export async function openOutput(out: string, inputs: readonly string[]): Promise<void> {
  await mkdir(out, { recursive: true });
  const real = await realpath(out);
  for (const input of inputs) {
    if ((await realpath(input)) === real)
      throw new UserError(`--out ${out}: it is the input ${input}; choose another`);
  }
  const files = await readdir(out);
  if (files.some((file) => !leftover.test(file)) && !(await isOurs(out))) {
    throw new UserError(
      `--out ${out}: the folder is not empty and was not written by train-merge; choose another`,
    );
  }
  // The folder is ours, and so are these: what a run that was cut off worked with.
  for (const own of ["treated", "products"]) await rm(join(out, own), { recursive: true, force: true });
  await removeLeftovers(out);
}

/** Removes what a kill left half-written; the nodes of a tree see to their own folders. */
export async function removeLeftovers(out: string): Promise<void> {
  for (const entry of await readdir(out, { withFileTypes: true })) {
    const path = join(out, entry.name);
    if (entry.isFile() && leftover.test(entry.name)) await rm(path);
    else if (entry.isDirectory() && entry.name !== "nodes") await removeLeftovers(path);
  }
}

/** Removes the results of an earlier run: while they are made anew, the folder is not a finished merge. */
export async function clearResults(out: string): Promise<void> {
  await removeFinal(out);
  await removeWeights(out);
}

/**
 * The same for a folder that models are merged into without training: nothing of what stood there
 * belongs to what will.
 */
export async function clearMerge(out: string): Promise<void> {
  await clearResults(out);
  for (const file of ["config.json", "state.json", "training.jsonl"])
    await rm(join(out, file), { force: true });
}

async function removeFinal(out: string): Promise<void> {
  for (const file of finalFiles) await rm(join(out, file), { force: true, recursive: true });
}

/** Copies a merged model that a node wrote, file by file; an index comes after its shards. */
export async function copyModel(from: string, to: string): Promise<void> {
  const files = (await readdir(from, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => relative(from, join(entry.parentPath, entry.name)));
  for (const file of files.sort(
    (a, b) => Number(a.endsWith(".index.json")) - Number(b.endsWith(".index.json")) || (a < b ? -1 : 1),
  )) {
    await atomicFile(join(to, file), async (write) => {
      for await (const chunk of createReadStream(join(from, file), { highWaterMark: 1 << 22 }))
        await write(chunk as Buffer);
    });
  }
}

/** Marks the folder as a run under way: its first state is saved, and the results of an earlier run are gone. */
export async function beginRun(out: string, saveFirst: () => Promise<void>): Promise<void> {
  await saveFirst();
  await removeFinal(out);
}

/**
 * Writes what stands beside the weights: the base's config (with the type of the weights, where it was
 * chosen) and tokenizer.
 */
export async function writeAround(
  out: string,
  { checkpoint }: Member,
  dtype: FloatDType | undefined,
  changes: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  const folder = checkpoint.home ?? checkpoint.folder;
  const names = { F32: "float32", F16: "float16", BF16: "bfloat16" };
  await writeText(
    join(out, "config.json"),
    editJson(await readFile(join(folder, "config.json"), "utf8"), ({ torch_dtype: older, ...config }) => ({
      ...config,
      ...(older !== undefined && { dtype: older }),
      ...changes,
      ...(dtype && { dtype: names[dtype] }),
    })),
  );
  for (const file of tokenizerFiles) {
    const from = join(folder, file);
    if (existsSync(from)) await atomicFile(join(out, file), async (write) => write(await readFile(from)));
  }
}

/** Writes a task's head as its expert has it, byte for byte, with the expert's config (label names). */
export async function writeHead(out: string, expert: Member, names: HeadNames | undefined): Promise<void> {
  const folder = join(out, "heads", expert.label);
  const sources = headTensors(names)
    .filter((name) => expert.actual.has(name))
    .map((name): TensorSource => {
      const stored = expert.actual.get(name)!;
      const { dtype, shape } = expert.checkpoint.entry(stored)!;
      // Under the expert's own name: transformers looks for that.
      return { name: stored, dtype, shape, bytes: async () => (await expert.checkpoint.read(stored)).bytes };
    });
  if (names) await writeSafetensors(join(folder, "head.safetensors"), sources);
  await writeText(join(folder, "config.json"), expert.checkpoint.config);
}
