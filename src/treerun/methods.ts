import { methods } from "../methods/index.js";

/** Methods that give one table, so that a tree of them is one table too. */
const linearMethods: readonly string[] = ["supermerge", "average", "task-arithmetic"];

const others = methods
  .filter(
    ({ name, needs, inputs }) => !linearMethods.includes(name) && !needs && (inputs?.[1] ?? Infinity) > 2,
  )
  .map(({ name }) => name);

/** How a node may merge its children: by those, or by any method that merges two and more models without data. */
export const nodeMethods: readonly string[] = [...linearMethods, ...others];
export type NodeMethod = string;
export const isLinear = (method: NodeMethod): boolean => linearMethods.includes(method);
