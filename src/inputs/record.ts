import { existsSync } from "node:fs";
import { createHash } from "node:crypto";
import { basename, join, relative } from "node:path";
import type { Family, Member } from "../checkpoint/family.js";
import { sha256 } from "../checkpoint/files.js";
import type { InputHash } from "../report/card.js";
import type { DataFiles } from "../tasks/files.js";
import type { TaskData } from "../tasks/split.js";
import type { Source } from "./locate.js";
import type { MergeOptions } from "../config/options.js";
import type { MemoryPlan } from "./placement.js";

/** A file's hash; of several, that of their names and hashes. */
export async function hashOf({ name, files }: DataFiles): Promise<string> {
  if (files.length === 1) return sha256(files[0]!);
  const each: string[] = [];
  for (const path of files) each.push(`${await sha256(path)}  ${relative(name, path)}`);
  return createHash("sha256").update(each.join("\n")).digest("hex");
}

/** Hashes of everything the numbers depend on: models, tokenizer, data. */
export async function hashInputs(
  family: Family,
  sources: readonly Source[],
  data: string,
  tasks: readonly { id: string; sources: TaskData["sources"] }[],
  prompts: readonly string[] = [],
): Promise<InputHash[]> {
  const { base, experts } = family;
  const files = [base, ...experts].flatMap(({ label, checkpoint }) =>
    checkpoint.files.map((file) => ({ role: label, path: join(checkpoint.folder, file) })),
  );
  for (const { label, folder, tasks: mine, merged } of sources) {
    if (merged)
      for (const task of mine)
        for (const file of ["head.safetensors", "config.json"])
          files.push({ role: `${label}, head of ${task}`, path: join(folder, "heads", task, file) });
  }
  for (const file of ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"]) {
    const path = join(base.checkpoint.folder, file);
    if (existsSync(path)) files.push({ role: base.label, path });
  }
  if (existsSync(join(data, "tasks.json"))) files.push({ role: "data", path: join(data, "tasks.json") });
  for (const path of prompts) files.push({ role: "prompts", path });
  const hashes: InputHash[] = [];
  for (const { role, path } of files) hashes.push({ role, file: basename(path), sha256: await sha256(path) });
  for (const { id, sources } of tasks)
    for (const source of new Set([sources.validation, sources.test]))
      hashes.push({ role: `${id}, data`, file: basename(source.name), sha256: await hashOf(source) });
  return hashes;
}

/** The transformers class that an expert says it is. */
export function headClassOf({ checkpoint }: Member): string {
  const listed = checkpoint.config["architectures"];
  const architecture: unknown = Array.isArray(listed) ? listed[0] : listed;
  return typeof architecture === "string" && /^\w+$/.test(architecture)
    ? architecture
    : "AutoModelForSequenceClassification";
}

/** Settings that change the numbers, as the card and the state record them: without places on this machine. */
export function recorded(options: MergeOptions, { engine, chosen }: MemoryPlan): Record<string, unknown> {
  const {
    base: _b,
    experts: _e,
    data: _d,
    out: _o,
    resume: _r,
    family: _f,
    prompts: _p,
    memoryBudget: _m,
    baselines: _l,
    tensorboard: _n,
    ...rest
  } = options;
  return { ...rest, backend: engine, residency: chosen.residency, blocks: chosen.blockwise ? "on" : "off" };
}
