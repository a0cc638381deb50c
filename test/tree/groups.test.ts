import { expect, test } from "vitest";
import { byOrder, bySimilarity, groupSizes, nestedTree, planTree, type Nested } from "../../src/tree/plan.js";

/** Who is merged with whom. */
const leaves = ["a", "b", "c", "d"];
const ids = ({ nodes }: { nodes: readonly { id: string }[] }) => nodes.map(({ id }) => id);

test("groups are as few and as even as can be", () => {
  expect([1, 2, 3, 4, 5, 6].map((n) => groupSizes(n, 3))).toEqual([[1], [2], [3], [2, 2], [3, 2], [3, 3]]);
  expect(groupSizes(10, 4)).toEqual([4, 3, 3]);
  expect(groupSizes(0, 2)).toEqual([]);
});

test("the two that are most similar open the first group, not the first task and its nearest", () => {
  const similarity = [
    [1, 0.1, 0.5, 0.2],
    [0.1, 1, 0.2, 0.3],
    [0.5, 0.2, 1, 0.9],
    [0.2, 0.3, 0.9, 1],
  ];
  expect(ids(planTree(leaves, 2, bySimilarity(similarity)))).toEqual(["c+d", "a+b", "a+b+c+d"]);
});

test("who joins a group is nearest to all of it, not to one of it, and not least near", () => {
  // c is nearest to a, d to a and b together.
  const similarity = [
    [1, 0.9, 0.8, 0.6, 0, 0],
    [0.9, 1, 0.1, 0.6, 0, 0],
    [0.8, 0.1, 1, 0, 0, 0],
    [0.6, 0.6, 0, 1, 0, 0],
    [0, 0, 0, 0, 1, 0],
    [0, 0, 0, 0, 0, 1],
  ];
  expect(
    bySimilarity(similarity)(
      [0, 1, 2, 3, 4, 5].map((i) => [i]),
      3,
    ),
  ).toEqual([
    [0, 1, 3],
    [2, 4, 5],
  ]);
});

test("sets of tasks are as similar as their pairs are on average", () => {
  // To {0, 1}, 2 is 0.9 and 0 near, {3, 4, 5, 6} 0.5 throughout: the mean, not the best, nor the sum.
  const near = (i: number, j: number) => {
    const [a, b] = [Math.min(i, j), Math.max(i, j)];
    if (a === 0 && b === 2) return 0.9;
    if (a < 2 && b > 2) return 0.5;
    return 0;
  };
  const similarity = Array.from({ length: 7 }, (_, i) => Array.from({ length: 7 }, (__, j) => near(i, j)));
  expect(bySimilarity(similarity)([[0, 1], [2], [3, 4, 5, 6]], 2)).toEqual([[0, 2], [1]]);
  // Twice as many pairs of half the similarity are no nearer.
  const sum = (i: number, j: number) => (Math.min(i, j) === 0 ? [0, 0.6, 0.5, 0.5][Math.max(i, j)]! : 0);
  const other = Array.from({ length: 4 }, (_, i) => Array.from({ length: 4 }, (__, j) => sum(i, j)));
  expect(bySimilarity(other)([[0], [1], [2, 3]], 2)).toEqual([[0, 1], [2]]);
});

test("experts that oppose each other are less near than strangers", () => {
  const similarity = [
    [1, -0.9, -0.5],
    [-0.9, 1, -0.8],
    [-0.5, -0.8, 1],
  ];
  expect(bySimilarity(similarity)([[0], [1], [2]], 2)).toEqual([[0, 2], [1]]);
});

test("a group's members stand in the order of the tasks, whoever came first", () => {
  const similarity = [
    [1, 0.2, 0.8],
    [0.2, 1, 0.9],
    [0.8, 0.9, 1],
  ];
  // 1 and 2 open the group, and 0 joins.
  expect(bySimilarity(similarity)([[0], [1], [2]], 3)).toEqual([[0, 1, 2]]);
});

test("one task is no tree; two are one node", () => {
  expect(planTree(["a"], 2, byOrder)).toEqual({ leaves: ["a"], nodes: [] });
  expect(planTree(["a", "b"], 2, byOrder).nodes).toEqual([
    { id: "a+b", level: 1, tasks: ["a", "b"], children: ["a", "b"] },
  ]);
  expect(bySimilarity([[1]])([[0]], 2)).toEqual([[0]]);
});

test("a node stands one level above its highest child", () => {
  const { nodes } = nestedTree(leaves, [["a", ["b", "c"]], "d"]);
  expect(nodes.map(({ id, level }) => [id, level])).toEqual([
    ["b+c", 1],
    ["a+b+c", 2],
    ["a+b+c+d", 3],
  ]);
});

test("a group of one is what it holds, and the order within a name is that of the tasks", () => {
  expect(ids(nestedTree(leaves, [[["d"], "b"], [["c", "a"]]]))).toEqual(["b+d", "a+c", "a+b+c+d"]);
});

test.each<[Nested, string]>([
  [[["a", "b"], [], "c", "d"], "every group must be a list of tasks and groups"],
  [[["a", "b"], 7 as never, "d"], "every group must be a list of tasks and groups"],
  [[["a", "b"], { length: 2 } as never, "d"], "every group must be a list of tasks and groups"],
  [["a", "e"], '"e" is not among the tasks (a, b, c, d)'],
  [["a", ["b", "a"], "c", "d"], '"a" stands in it twice'],
  [["a", "b", "d"], '"c" is missing from it'],
])("a tree that cannot be is refused: %j", (nested, message) => {
  expect(() => nestedTree(leaves, nested)).toThrow(new RangeError(message));
});

test("a fan-in of one is refused", () => {
  expect(() => planTree(leaves, 1, byOrder)).toThrow(
    new RangeError("a node merges at least two models, not 1"),
  );
  expect(planTree(leaves, 2, byOrder).nodes).toHaveLength(3);
});
