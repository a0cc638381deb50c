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
  return Array.from({ length: groups }, (_, g) => Math.floor(n / groups) + (g < n % groups ? 1 : 0));
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
      const pairs = items[a]!.flatMap((i) => items[b]!.map((j) => similarity[i]![j]!));
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
    const closest = (item: number) =>
      Math.max(...[...free].filter((other) => other !== item).map((other) => between(item, other)));
    return groupSizes(items.length, fanIn).map((size) => {
      const group = [best(free, (item) => (free.size > 1 ? closest(item) : 0))];
      free.delete(group[0]!);
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

/** Builds nodes as they are named; the order of leaves within an id is that of `leaves`. */
function builder(leaves: readonly string[]) {
  const nodes: TreeNode[] = [];
  const levels = new Map<string, number>(leaves.map((leaf) => [leaf, 0]));
  const add = (
    children: readonly { id: string; tasks: readonly string[] }[],
  ): { id: string; tasks: readonly string[] } => {
    if (children.length === 1) return children[0]!;
    const inside = new Set(children.flatMap(({ tasks }) => tasks));
    const tasks = leaves.filter((leaf) => inside.has(leaf));
    const node = {
      id: tasks.join("+"),
      level: 1 + Math.max(...children.map(({ id }) => levels.get(id)!)),
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
  let items = leaves.map((leaf, i) => ({ id: leaf, tasks: [leaf], members: [i] as number[] }));
  while (items.length > 1) {
    items = group(
      items.map(({ members }) => members),
      fanIn,
    ).map((picked) => {
      const children = picked.map((at) => items[at]!);
      const { id, tasks } = add(children);
      return { id, tasks: [...tasks], members: children.flatMap(({ members }) => members) };
    });
  }
  return { leaves, nodes };
}

/** A tree that the user wrote. @throws RangeError where a task is missing, unknown or named twice */
export function nestedTree(leaves: readonly string[], nested: Nested): Tree {
  const { nodes, add } = builder(leaves);
  const seen = new Set<string>();
  const walk = (at: Nested): { id: string; tasks: readonly string[] } => {
    if (typeof at !== "string") {
      if (!Array.isArray(at) || at.length === 0)
        throw new RangeError("every group must be a list of tasks and groups");
      return add(at.map(walk));
    }
    if (!leaves.includes(at)) throw new RangeError(`"${at}" is not among the tasks (${leaves.join(", ")})`);
    if (seen.has(at)) throw new RangeError(`"${at}" stands in it twice`);
    seen.add(at);
    return { id: at, tasks: [at] };
  };
  walk(nested);
  const missing = leaves.find((leaf) => !seen.has(leaf));
  if (missing !== undefined) throw new RangeError(`"${missing}" is missing from it`);
  return { leaves, nodes };
}
