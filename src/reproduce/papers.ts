import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { readJson, digest } from "../checkpoint/files.js";
import { packageFolder } from "../package.js";
import type { InputHash } from "../report/card.js";
import { verdicts } from "./claims.js";
import type { Experiment } from "./types.js";

/** What a paper printed. */
const paper = z.object({
  source: z.string(),
  table: z.object({ head: z.array(z.string()), body: z.array(z.array(z.string())) }).optional(),
  says: z.array(z.string()).default([]),
});
export type Paper = z.infer<typeof paper>;

/** What a command is expected to find on a family, which is known by its base's weights. */
const expected = z.object({
  families: z.array(
    z.object({
      name: z.string(),
      /** The hash of the base's weights (of several families, or of a base in several files: of their hashes). */
      base: z.string().regex(/^[0-9a-f]{64}$/),
      /** Settings other than the customary ones. */
      given: z.record(z.string(), z.unknown()).default({}),
      tasks: z.array(z.string()),
      heldOut: z.array(z.string()),
      seeds: z.array(z.number()),
      numbers: z.record(z.string(), z.object({ value: z.number(), tolerance: z.number().min(0) })),
      /**
       * How it went when it was kept: minutes of its merges and searches (of the whole run where it has
       * none), and what the paper says of it.
       */
      minutes: z.number().optional(),
      claims: z
        .array(
          z.object({
            text: z.string(),
            holds: z.boolean().optional(),
            /** How sure it is, where every test example's answer was kept (rows.csv.gz). */
            sureness: z.object({ share: z.number(), examples: z.number() }).optional(),
            verdict: z.enum(verdicts).optional(),
          }),
        )
        .optional(),
    }),
  ),
});
export type Expected = z.infer<typeof expected>;

/** What a range is of: this very command, but for where things lie. */
export interface Ranged {
  readonly tasks: readonly string[];
  readonly heldOut: readonly string[];
  readonly seeds: readonly number[];
  readonly given: Readonly<Record<string, unknown>>;
  readonly inputs: readonly InputHash[];
}

export function baseOf(inputs: readonly InputHash[]): string | undefined {
  const found = inputs
    .filter(({ role, file }) => role === "base" && file.endsWith(".safetensors"))
    .map(({ sha256 }) => sha256)
    .sort();
  if (found.length > 1) return digest(found);
  return found[0];
}

/** Whether an entry of expected.json is of this command. */
export const isOf = (
  one: Omit<Expected["families"][number], "name" | "numbers">,
  { tasks, heldOut, seeds, given, inputs }: Ranged,
): boolean =>
  one.base === baseOf(inputs) &&
  digest([one.tasks, one.heldOut, one.seeds, one.given]) === digest([tasks, heldOut, seeds, given]);

export const experimentFolder = ({ id }: Experiment): string =>
  join(packageFolder, "experiments", id.replace("/", "-"));

export async function readPaper(experiment: Experiment): Promise<Paper | undefined> {
  const path = join(experimentFolder(experiment), "paper.json");
  if (!existsSync(path)) return undefined;
  return paper.parse(await readJson(path));
}

export async function readExpected(experiment: Experiment): Promise<Expected> {
  const path = join(experimentFolder(experiment), "expected.json");
  if (!existsSync(path)) return { families: [] };
  return expected.parse(await readJson(path));
}
