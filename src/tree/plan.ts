import { at, lookUp } from "../at.js";
import type { Similarity } from "./similarity.js";

/** What is merged at a node: tasks' experts (leaves) and nodes below, by their ids. */
export interface TreeNode {
  /** Its tasks, joined with "+": no two nodes have the same. */
  readonly id: string;
  /** 1 for a node of leaves only; one more than its highest child. */
  readonly level: number;
  readonly tasks: readonly string[];
  /** A task is its own expert's id. */
  readonly children: readonly string[];
}

/** Nodes in an order in which children come first; the last is the root. */
export interface Tree {
  readonly leaves: readonly string[];
  readonly nodes: readonly TreeNode[];
}

/** A tree as people write it: ["rte", ["cb", "copa"]]. */
export type Nested = string | readonly Nested[];

/** How a level's items (each a set of leaf numbers) become groups of at most `fanIn`. */
export type Grouping = (items: readonly (readonly number[])[], fanIn: number) => number[][];

/** Sizes of the fewest groups that hold n items, as even as can be. */
export function groupSizes(n: number, fanIn: number): number[] {
  const groups = Math.ceil(n / fanIn);
  return Array.from({ length: groups }, (_, g) => Math.floor(n / groups) + Number(g < n % groups));
}

/** Neighbours in the order given. */
export const byOrder: Grouping = (items, fanIn) => {
  let at = 0;
  return groupSizes(items.length, fanIn).map((size) => Array.from({ length: size }, () => at++));
};

/**
 * Most similar first: the two most similar items open a group, and who is on average most similar to
 * the group joins it until it is full. Similarity of two sets of leaves is the mean over their pairs
 * (average linkage). Ties go to the earlier item, so the plan is a function of its inputs.
 */
export const bySimilarity =
  (similarity: Similarity): Grouping =>
  (items, fanIn) => {
    const between = (a: number, b: number) => {
      const pairs = at(items, a).flatMap((i) => at(items, b).map((j) => at(at(similarity, i), j)));
      return pairs.reduce((sum, value) => sum + value, 0) / pairs.length;
    };
    const free = new Set(items.keys());
    const best = (candidates: Iterable<number>, score: (item: number) => number): number => {
      let found = { item: -1, score: -Infinity };
      for (const item of candidates) {
        const value = score(item);
        if (value > found.score) found = { item, score: value };
      }
      return found.item;
    };
    // Of one that is left alone: below every cosine.
    const closest = (item: number) =>
      Math.max(-2, ...[...free].filter((other) => other !== item).map((other) => between(item, other)));
    return groupSizes(items.length, fanIn).map((size) => {
      const first = best(free, closest);
      const group = [first];
      free.delete(first);
      while (group.length < size) {
        const next = best(
          free,
          (item) => group.reduce((sum, member) => sum + between(item, member), 0) / group.length,
        );
        group.push(next);
        free.delete(next);
      }
      return group.sort((a, b) => a - b);
    });
  };

/** A leaf or a node, with the tasks in it. */
interface TaskGroup {
  readonly id: string;
  readonly tasks: readonly string[];
}

/** Builds nodes as they are named; the order of leaves within an id is that of `leaves`. */
function builder(leaves: readonly string[]) {
  const nodes: TreeNode[] = [];
  const levels = new Map<string, number>(leaves.map((leaf) => [leaf, 0]));
  const add = (children: readonly TaskGroup[]): TaskGroup => {
    const [first] = children;
    if (first && children.length === 1) return first;
    const inside = new Set(children.flatMap(({ tasks }) => tasks));
    const tasks = leaves.filter((leaf) => inside.has(leaf));
    const node = {
      id: tasks.join("+"),
      level: 1 + Math.max(...children.map(({ id }) => lookUp(levels, id))),
      tasks,
      children: children.map(({ id }) => id),
    };
    nodes.push(node);
    levels.set(node.id, node.level);
    return node;
  };
  return { nodes, add };
}

/** Level by level, groups of at most `fanIn`, down to one. An item that is left alone goes up as it is. */
export function planTree(leaves: readonly string[], fanIn: number, group: Grouping): Tree {
  if (fanIn < 2) throw new RangeError(`a node merges at least two models, not ${fanIn}`);
  const { nodes, add } = builder(leaves);
  interface Item extends TaskGroup {
    /** Numbers of its leaves. */
    readonly members: readonly number[];
  }
  let items = leaves.map((leaf, i): Item => ({ id: leaf, tasks: [leaf], members: [i] }));
  while (items.length > 1) {
    items = group(
      items.map(({ members }) => members),
      fanIn,
    ).map((picked): Item => {
      const children = picked.map((place) => at(items, place));
      return { ...add(children), members: children.flatMap(({ members }) => members) };
    });
  }
  return { leaves, nodes };
}

/** A tree that the user wrote. @throws RangeError where a task is missing, unknown or named twice */
export function nestedTree(leaves: readonly string[], nested: Nested): Tree {
  const { nodes, add } = builder(leaves);
  const seen = new Set<string>();
  const walk = (part: Nested): TaskGroup => {
    if (typeof part !== "string") {
      if (!Array.isArray(part) || part.length === 0)
        throw new RangeError("every group must be a list of tasks and groups");
      return add(part.map(walk));
    }
    if (!leaves.includes(part))
      throw new RangeError(`"${part}" is not among the tasks (${leaves.join(", ")})`);
    if (seen.has(part)) throw new RangeError(`"${part}" stands in it twice`);
    seen.add(part);
    return { id: part, tasks: [part] };
  };
  walk(nested);
  const missing = leaves.find((leaf) => !seen.has(leaf));
  if (missing !== undefined) throw new RangeError(`"${missing}" is missing from it`);
  return { leaves, nodes };
}
