import { existsSync } from "node:fs";
import { createHash } from "node:crypto";
import { basename, join, relative } from "node:path";
import type { Family, Member } from "../checkpoint/family.js";
import { sha256 } from "../checkpoint/files.js";
import { headFolder, headPath, fileNames } from "../folder/files.js";
import type { InputHash } from "../report/card.js";
import { requestFor } from "../plan/memory.js";
import type { DataFiles } from "../tasks/files.js";
import type { TaskData } from "../tasks/split.js";
import type { Source } from "./locate.js";
import type { MergeOptions } from "../config/options.js";
import type { MemoryPlan } from "./placement.js";

/** A file's hash; of several, that of their names and hashes. */
export async function dataHash({ name, files }: DataFiles): Promise<string> {
  const [first, ...more] = files;
  if (first !== undefined && more.length === 0) return sha256(first);
  const each: string[] = [];
  for (const path of files) each.push(`${await sha256(path)}  ${relative(name, path)}`);
  return createHash("sha256").update(each.join("\n")).digest("hex");
}

/** Everything that the numbers depend on, in files. */
export interface HashedInputs {
  readonly family: Family;
  readonly sources: readonly Source[];
  /** The data folder. */
  readonly data: string;
  readonly tasks: readonly { readonly id: string; readonly sources: TaskData["sources"] }[];
  /** Template files. */
  readonly prompts?: readonly string[] | undefined;
}

/** Files by what they are to the run: weights and configs, heads of earlier merges, tokenizer, the tasks' list. */
function hashedFiles({
  family: { base, experts },
  sources,
  data,
}: HashedInputs): { role: string; path: string }[] {
  const files = [base, ...experts].flatMap(({ label, checkpoint }) =>
    checkpoint.files.map((file) => ({ role: label, path: join(checkpoint.folder, file) })),
  );
  for (const { label, folder, tasks } of sources.filter(({ merged }) => merged))
    for (const task of tasks) {
      const role = `${label}, head of ${task}`;
      const config = join(headFolder(folder, task), fileNames.config);
      files.push({ role, path: headPath(folder, task) }, { role, path: config });
    }
  for (const file of ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"]) {
    const path = join(base.checkpoint.folder, file);
    if (existsSync(path)) files.push({ role: base.label, path });
  }
  const tasksFile = join(data, "tasks.json");
  if (existsSync(tasksFile)) files.push({ role: "data", path: tasksFile });
  return files;
}

/** Hashes of everything the numbers depend on: models, tokenizer, data, prompts. */
export async function hashInputs(inputs: HashedInputs): Promise<InputHash[]> {
  const prompts = (inputs.prompts ?? []).map((path) => ({ role: "prompts", path }));
  const hashes: InputHash[] = [];
  for (const { role, path } of [...hashedFiles(inputs), ...prompts])
    hashes.push({ role, file: basename(path), sha256: await sha256(path) });
  for (const { id, sources } of inputs.tasks)
    for (const source of new Set([sources.validation, sources.test]))
      hashes.push({ role: `${id}, data`, file: basename(source.name), sha256: await dataHash(source) });
  return hashes;
}
/** The transformers class that an expert says it is. */
export function headClassOf({ checkpoint }: Member): string {
  const [architecture]: unknown[] = [checkpoint.config["architectures"]].flat();
  if (typeof architecture === "string" && /^\w+$/.test(architecture)) return architecture;
  return "AutoModelForSequenceClassification";
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
  return { ...rest, backend: engine, ...requestFor(chosen) };
}
