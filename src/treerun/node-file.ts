import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { z } from "zod";
import { digest, readJson } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { methods } from "../methods/index.js";
import type { FlatMerge } from "../tree/flatten.js";

/** Methods that give one table, so that a tree of them is one table too. */
const linearMethods: readonly string[] = ["supermerge", "average", "task-arithmetic"];
/** How a node may merge its children: by those, or by any method that merges two and more models without data. */
export const nodeMethods = [
  ...linearMethods,
  ...methods
    .filter(
      ({ name, needs, inputs }) => !linearMethods.includes(name) && !needs && (inputs?.[1] ?? Infinity) > 2,
    )
    .map(({ name }) => name),
] as [string, ...string[]];
export type NodeMethod = string;
export const isLinear = (method: NodeMethod): boolean => linearMethods.includes(method);

/**
 * A node's folder under nodes/: its id, or where that is long, its start and a digest. Task names hold
 * no separators.
 */
export const folderName = (id: string): string =>
  id.length <= 100 ? id : `${id.slice(0, 80)}+…${digest(id).slice(0, 12)}`;

const name = z.string().regex(/^\w[\w.+-]*$/);
const source = z.object({
  label: z.string(),
  folder: z.string(),
  tasks: z.array(z.string()),
  merged: z.boolean(),
});
const hash = z.object({ role: z.string(), file: z.string(), sha256: z.string() });

/** nodes/<id>/node.json: all that one node needs, for `train-merge node`. */
const nodeFile = z.object({
  id: name,
  level: z.number(),
  tasks: z.array(name).min(1),
  /** Tasks (leaves) and ids of nodes, whose folders lie beside this one's, with the identity they must have. */
  children: z.array(z.object({ id: name, identity: z.string().nullable() })),
  /** SHA-256 of everything the result depends on. */
  identity: z.string(),
  method: z.enum(nodeMethods),
  keepNodes: z.boolean(),
  base: z.string(),
  /** The experts of its tasks. */
  sources: z.array(source),
  hashes: z.array(hash),
  /** Options of the run, as `train-merge train` takes them. */
  settings: z.record(z.string(), z.unknown()),
});
export type NodeFile = z.infer<typeof nodeFile>;

const score = z.object({ accuracy: z.number(), loss: z.number(), n: z.number() });

/** nodes/<id>/result.json: written last, so a node that has one is done. */
const nodeResult = z.object({
  identity: z.string(),
  id: z.string(),
  method: z.enum(nodeMethods),
  /** Absent where the method is not linear: then the merged model lies in model/. */
  flat: z
    .object({ leaves: z.array(z.string()), tensors: z.record(z.string(), z.array(z.number())) })
    .optional(),
  /** Task → the merged model's score on its test split. */
  test: z.record(z.string(), score),
  /** Task → the score of the child that it came with. */
  before: z.record(z.string(), score),
});
export interface NodeResult extends Omit<z.infer<typeof nodeResult>, "flat"> {
  flat?: FlatMerge | undefined;
}

/** nodes/<id>/run.json: what may differ between equal runs. */
export interface NodeRun {
  readonly seconds: number;
  readonly peakMemoryBytes: number;
  readonly devicePeakBytes: number;
  readonly bytesRead: number;
}

export async function readNodeFile(path: string): Promise<NodeFile> {
  const parsed = nodeFile.safeParse(await readJson(path));
  if (!parsed.success)
    throw new UserError(`${path}: not a node of this version; \`train-merge tree\` writes them`);
  return parsed.data;
}

/**
 * A node's result, or undefined where it is not done, was done with other inputs, or is damaged: then
 * it is to be run.
 */
export async function readResult(
  folder: string,
  identity: string,
  tasks: readonly string[],
): Promise<NodeResult | undefined> {
  const path = join(folder, "result.json");
  if (!existsSync(path)) return undefined;
  const parsed = nodeResult.safeParse(await readJson(path).catch(() => undefined));
  if (!parsed.success || parsed.data.identity !== identity) return undefined;
  const { flat, test, before } = parsed.data;
  const same = (names: readonly string[]) => [...names].sort().join() === [...tasks].sort().join();
  const sound =
    same(Object.keys(test)) &&
    same(Object.keys(before)) &&
    (!flat ||
      (same(flat.leaves) && Object.values(flat.tensors).every((row) => row.length === flat.leaves.length)));
  return sound ? parsed.data : undefined;
}

/** The result of a child that must be done. */
export async function childResult(
  path: string,
  { id, identity }: NodeFile["children"][number],
): Promise<NodeResult> {
  const result = await readResult(join(dirname(dirname(path)), folderName(id)), identity!, id.split("+"));
  if (!result)
    throw new UserError(
      `${path}: its child ${id} is not done (or was made from other inputs); run that node ` +
        `first, or \`train-merge tree\` again`,
    );
  return result;
}
