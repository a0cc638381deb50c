import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { z } from "zod";
import { stringify } from "yaml";
import { readJson } from "../checkpoint/files.js";
import { openCheckpoint } from "../checkpoint/folder.js";
import { openMember } from "../checkpoint/family.js";
import { UserError } from "../errors.js";
import { idOfSnapshot } from "../hub/hub.js";
import { readModel } from "../inputs/prepare.js";
import { isFloat } from "../tensor/dtype.js";

const coefficientsFile = z.object({
  tasks: z.array(z.string()),
  layers: z.array(z.object({ id: z.string(), names: z.array(z.string()) })),
  entries: z.array(z.object({ layer: z.string(), task: z.string(), coefficient: z.number() })),
});
const runFile = z.object({
  places: z.object({
    base: z.string(),
    sources: z.array(z.object({ label: z.string(), folder: z.string() })),
  }),
});
const resultsFile = z.object({
  settings: z.object({ treat: z.string().optional(), pack: z.string().optional() }),
});

async function read<T>(folder: string, file: string, schema: z.ZodType<T>): Promise<T> {
  const path = join(folder, file);
  if (!existsSync(path))
    throw new UserError(
      `${folder}: there is no ${file}; only a finished merge by coefficients can be exported`,
    );
  const parsed = schema.safeParse(await readJson(path));
  if (!parsed.success) throw new UserError(`${path}: not written by this version of train-merge`);
  return parsed.data;
}

/** Canonical name → the base's own, which is what a filter meets where all models call a tensor so. */
async function namesIn(base: string): Promise<ReadonlyMap<string, string>> {
  if (!existsSync(base)) throw new UserError(`${base}: the base that run.json names is not there (any more)`);
  const { family } = await readModel(base);
  const member = await openMember("base", base, family.canonical);
  await member.checkpoint.close();
  return member.actual;
}

/** As a file that is to travel names a model: by its id where it came from the hub. */
const modelOf = (folder: string): string => idOfSnapshot(resolve(folder)) ?? resolve(folder);

/**
 * A finished merge by coefficients as a mergekit file: task arithmetic whose weights are the
 * coefficients, each under a filter that is the tensor's whole name. mergekit (or `train-merge merge
 * FILE`) makes the same model from it.
 */
export async function mergekitOf(folder: string): Promise<string> {
  const { tasks, layers, entries } = await read(folder, "coefficients.json", coefficientsFile);
  const {
    places: { base, sources },
  } = await read(folder, "run.json", runFile);
  const {
    settings: { treat = "none", pack = "f32" },
  } = await read(folder, "results.json", resultsFile);
  if (treat !== "none")
    throw new UserError(
      `${folder}: its coefficients weight task vectors treated with ${treat}, which no mergekit file can say`,
    );
  if (pack === "sparse")
    throw new UserError(
      `${folder}: its coefficients weight trimmed task vectors (--pack sparse), which no mergekit file can say`,
    );
  const stored = await namesIn(base);
  const names = new Map(layers.map(({ id, names: all }) => [id, all]));
  const models = tasks.map((task) => {
    const source = sources.find(({ label }) => label === task);
    if (source && !existsSync(source.folder))
      throw new UserError(
        `${source.folder}: the expert for ${task} that run.json names is not there (any more)`,
      );
    if (!source) throw new UserError(`${folder}: run.json does not say where ${task} is`);
    const weight = entries
      .filter((entry) => entry.task === task)
      .flatMap(({ layer, coefficient }) =>
        names
          .get(layer)!
          .flatMap((name) =>
            [...new Set([name, stored.get(name) ?? name])].map((filter) => ({ filter, value: coefficient })),
          ),
      );
    // A filter is a part of a name and the first that fits counts: the longer name first, should one hold another.
    return {
      model: modelOf(source.folder),
      parameters: { weight: [...weight.sort((a, b) => b.filter.length - a.filter.length), { value: 0 }] },
    };
  });
  const checkpoint = await openCheckpoint(folder);
  await checkpoint.close();
  const written = checkpoint.names.map((name) => checkpoint.entry(name)!.dtype).find(isFloat) ?? "F32";
  return stringify({
    merge_method: "task_arithmetic",
    base_model: modelOf(base),
    models,
    parameters: { normalize: false, lambda: 1 },
    dtype: "float32",
    out_dtype: { F32: "float32", F16: "float16", BF16: "bfloat16" }[written],
  });
}
