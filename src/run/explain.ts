import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { at } from "../at.js";
import { entryOf, openCheckpoint } from "../checkpoint/folder.js";
import { startEngine } from "../backend/index.js";
import { openMember } from "../checkpoint/family.js";
import { readJson } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { blockRequest } from "../plan/memory.js";
import { shapeOfHeader, type FamilyShape } from "../plan/shape.js";
import { dtypeBytes, isDType, type DType } from "../tensor/dtype.js";
import { checkpointTypeOf, familyOf } from "../models/index.js";
import { locate } from "../inputs/locate.js";
import type { MergeOptions } from "../config/options.js";
import { planMemory, shapeOf, shapeWithModel, type MemoryPlan } from "../inputs/placement.js";
import { buildModel, readModelConfig, readFamily, startFor } from "../inputs/prepare.js";

export interface ExplainOptions extends Pick<
  MergeOptions,
  | "tasks"
  | "family"
  | "base"
  | "experts"
  | "backend"
  | "residency"
  | "blocks"
  | "loss"
  | "pack"
  | "density"
  | "packBase"
  | "memoryBudget"
  | "microBatch"
  | "batchSize"
  | "maxLength"
> {
  /** A folder with config.json and either safetensors files or header.json, a safetensors header by itself. */
  readonly shape?: string | undefined;
  /** How many experts of that shape. */
  readonly count?: number | undefined;
}

const headerEntry = z.object({
  dtype: z.custom<DType>(isDType),
  shape: z.array(z.number().int().nonnegative()),
});

/** Name, shape and bytes an entry of every tensor of a folder, from headers alone. */
async function readHeader(
  folder: string,
): Promise<{ name: string; shape: readonly number[]; bytes: number }[]> {
  const path = join(folder, "header.json");
  if (!existsSync(path)) {
    const checkpoint = await openCheckpoint(folder);
    await checkpoint.close();
    return checkpoint.names.map((name) => ({
      name,
      shape: entryOf(checkpoint, name).shape,
      bytes: dtypeBytes[entryOf(checkpoint, name).dtype],
    }));
  }
  const header = z.record(z.string(), z.unknown()).safeParse(await readJson(path));
  if (!header.success) throw new UserError(`${path}: not a safetensors header`);
  return Object.entries(header.data)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, entry]) => {
      const found = headerEntry.safeParse(entry);
      if (!found.success) throw new UserError(`${path}: "${name}" is not an entry of a safetensors header`);
      return { name, shape: found.data.shape, bytes: dtypeBytes[found.data.dtype] };
    });
}

/** A header's shape, as the family that its config names reads it; as the header alone tells it, where none does. */
function knownShape(
  described: FamilyShape,
  config: Readonly<Record<string, unknown>>,
  where: string,
): FamilyShape {
  if (!checkpointTypeOf(config["model_type"])) return described;
  const { build, canonical } = familyOf(config, where);
  const tensors = described.tensors.map((tensor) => ({ ...tensor, name: canonical(tensor.name) }));
  const names = new Set(tensors.map(({ name }) => name));
  return shapeWithModel({ ...described, tensors }, build(config, { has: (name) => names.has(name) }));
}

async function familyShape(
  options: ExplainOptions,
): Promise<{ family: FamilyShape; what: string; engine: MemoryPlan["engine"]; maxLength: number }> {
  if (options.shape !== undefined) {
    const config = await readModelConfig(options.shape);
    const count = options.count ?? options.tasks.length;
    const header = await readHeader(options.shape);
    return {
      family: knownShape(shapeOfHeader(header, config, count), config, options.shape),
      what: `${options.shape}, ${count} experts`,
      engine: await startEngine(options.backend),
      maxLength: options.maxLength,
    };
  }
  const locations = await locate(options);
  const { canonical, outputLayers, pooler } = await readFamily(locations.base);
  const base = await openMember("base", locations.base, canonical);
  // Where the base has none, it is none of what is merged.
  const withoutPooler = pooler !== undefined && !base.actual.has(`${pooler}.weight`);
  const model = buildModel(base, at(outputLayers, 0), withoutPooler);
  await base.checkpoint.close();
  return {
    family: shapeOf(model, base, locations.sources.length),
    what: `${locations.base}, ${locations.sources.length} experts`,
    engine: await startFor(model, options.backend),
    maxLength: Math.min(options.maxLength, model.maxLength),
  };
}

/**
 * What every placement would take of memory, files and time for a family, from its headers alone:
 * nothing is loaded.
 */
export async function explainMemory(options: ExplainOptions): Promise<MemoryPlan & { what: string }> {
  const { family, what, engine, maxLength } = await familyShape(options);
  const step = {
    tokens: family.experts * options.batchSize * maxLength,
    microBatch: options.microBatch,
    length: maxLength,
  };
  const plan = await planMemory(family, step, engine, {
    packing: options.pack,
    basePacking: options.packBase,
    density: options.density,
    request: blockRequest(options.loss === "block-distillation", options),
    memoryBudget: options.memoryBudget,
  });
  return { ...plan, what };
}
