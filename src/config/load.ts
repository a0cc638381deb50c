import type { z } from "zod";
import { at } from "../at.js";
import { UsageError, UserError, camel, kebab } from "../errors.js";
import { nearest } from "../nearest.js";
import { readYaml } from "./yaml.js";
import { settings } from "./settings.js";
import { settingsSchema, type Settings } from "./schema.js";

/**
 * AdaMerging as its authors' code has it: two batches of 16 a task and step, 500 steps, λ from 0.3,
 * clamped to [0, 1].
 */
const adaMerging = {
  loss: "entropy",
  gate: "clamp",
  init: 0.3,
  lr: 0.001,
  steps: 500,
  batchSize: 16,
  batchesPerStep: 2,
  holdout: 0,
} as const;
const fusionBench = {
  loss: "entropy-fusion_bench",
  gate: "identity",
  steps: 1000,
  batchesPerStep: 1,
} as const;

/** What a method's name stands for, where a user does not say otherwise. */
export function presetOf(method: unknown, variant: unknown): Readonly<Record<string, unknown>> {
  if (method !== "adamerging" && method !== "adamerging++") return {};
  return {
    ...adaMerging,
    ...(variant === "fusion_bench" && fusionBench),
    ...(method === "adamerging++" && { treat: "ties" }),
  };
}

/** Reads a YAML file of settings: keys as the options are written, without the dashes before them. */
export async function readSettingsFile(path: string): Promise<Record<string, unknown>> {
  const value = await readYaml(path);
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new UserError(`${path}: it must hold keys and values, such as "steps: 200"`);
  const known = Object.keys(settings).map(kebab);
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) throw new UserError(`${path}: unknown key "${key}"${nearest(key, known)}`);
  }
  return Object.fromEntries(Object.entries(value).map(([key, v]) => [camel(key), v]));
}

function describe(issue: z.core.$ZodIssue, file: string | undefined, fromFile: ReadonlySet<string>): string {
  const key = String(issue.path[0]);
  const where = file !== undefined && fromFile.has(key) ? `${file}: ${kebab(key)}` : `--${kebab(key)}`;
  if (issue.code === "invalid_value") return `${where}: it must be one of ${issue.values.join(", ")}`;
  return `${where}: ${issue.message}`;
}

/**
 * Puts a config file and options together (options win), fills in the defaults and checks everything.
 * @throws UserError naming the file's key, UsageError naming the option
 */
export async function loadSettings(options: Record<string, unknown>, configPath?: string): Promise<Settings> {
  const file = configPath === undefined ? {} : await readSettingsFile(configPath);
  const given = Object.fromEntries(
    Object.entries(options).filter(([key, value]) => key in settings && value !== undefined),
  );
  const chosen: Record<string, unknown> = { ...file, ...given };
  const merged: Record<string, unknown> = { ...presetOf(chosen["method"], chosen["variant"]), ...chosen };
  if (merged["tasks"] === undefined)
    throw new UsageError(
      "name the tasks to merge: --tasks rte,cb,copa (`train-merge tasks` lists those it knows)",
    );
  const parsed = settingsSchema.safeParse(merged);
  if (parsed.success) return parsed.data;
  const fromFile = new Set(Object.keys(file).filter((key) => !(key in given)));
  const issue = at(parsed.error.issues, 0);
  const message = describe(issue, configPath, fromFile);
  if (fromFile.has(String(issue.path[0]))) throw new UserError(message);
  throw new UsageError(message);
}
