import { dirname } from "node:path";
import { nodeMethods } from "./methods.js";
import { UserError } from "../errors.js";
import {
  nodeFile,
  nodeFolder,
  nodeResultFile,
  type NodeFile,
  type NodeResult,
} from "../folder/tree-files.js";

/** A node's file. @param folder nodes/<id> @throws UserError where there is none of this version */
export async function readNode(folder: string): Promise<NodeFile> {
  const node = await nodeFile.readIfSound(folder);
  if (!node || !nodeMethods.includes(node.method))
    throw new UserError(
      `${nodeFile.in(folder)}: not a node of this version; \`train-merge tree\` writes them`,
    );
  return node;
}

/** Whether some names are these, in any order. */
function areNames(found: readonly string[], expected: readonly string[]): boolean {
  return [...found].sort().join() === [...expected].sort().join();
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
  const result = await nodeResultFile.readIfSound(folder);
  if (result?.identity !== identity) return undefined;
  const { flat, test, before } = result;
  if (!areNames(Object.keys(test), tasks) || !areNames(Object.keys(before), tasks)) return undefined;
  if (!flat) return result;
  const rows = Object.values(flat.tensors);
  const sound = areNames(flat.leaves, tasks) && rows.every((row) => row.length === flat.leaves.length);
  return sound ? result : undefined;
}

/** The folder of the tree that a node's folder is part of. */
export const treeOf = (folder: string): string => dirname(dirname(folder));

/** The result of a child that must be done. @param folder nodes/<id> of its parent */
export async function childResult(
  folder: string,
  { id, identity }: { readonly id: string; readonly identity: string },
): Promise<NodeResult> {
  const result = await readResult(nodeFolder(treeOf(folder), id), identity, id.split("+"));
  if (result) return result;
  throw new UserError(
    `${nodeFile.in(folder)}: its child ${id} is not done (or was made from other inputs); run that node ` +
      `first, or \`train-merge tree\` again`,
  );
}
