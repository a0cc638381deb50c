import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { readJson } from "../checkpoint/files.js";
import { packageFolder } from "../package.js";
import type { Experiment } from "./types.js";

/** What a paper printed. */
const paper = z.object({ source: z.string(), table: z.object({ head: z.array(z.string()), body: z.array(z.array(z.string())) }).optional(), says: z.array(z.string()).default([]) });
export type Paper = z.infer<typeof paper>;

/** What a command is expected to find on a family, which is known by its base's weights. */
const expected = z.object({
  families: z.array(z.object({
    name: z.string(), base: z.string().regex(/^[0-9a-f]{64}$/), tasks: z.array(z.string()), heldOut: z.array(z.string()), seeds: z.array(z.number()),
    numbers: z.record(z.string(), z.object({ value: z.number(), tolerance: z.number().min(0) })),
  })),
});
export type Expected = z.infer<typeof expected>;

export const folderOf = ({ id }: Experiment): string => join(packageFolder, "experiments", id.replace("/", "-"));

export async function readPaper(experiment: Experiment): Promise<Paper | undefined> {
  const path = join(folderOf(experiment), "paper.json");
  return existsSync(path) ? paper.parse(await readJson(path)) : undefined;
}

export async function readExpected(experiment: Experiment): Promise<Expected> {
  const path = join(folderOf(experiment), "expected.json");
  return existsSync(path) ? expected.parse(await readJson(path)) : { families: [] };
}
