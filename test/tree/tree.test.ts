import { expect, test } from "vitest";
import { coefficientsIn, flatten, leafMerge } from "../../src/tree/flatten.js";
import { bySimilarity, byOrder, groupSizes, nestedTree, planTree } from "../../src/tree/plan.js";
import { cosines, totalGram } from "../../src/tree/similarity.js";

const leaves = ["a", "b", "c", "d", "e"];
/** a and d are alike, b and e are, c is nearer to the first two. */
const similarity = [
  [1, 0.1, 0.3, 0.9, 0.1],
  [0.1, 1, 0.2, 0.1, 0.8],
  [0.3, 0.2, 1, 0.3, 0.2],
  [0.9, 0.1, 0.3, 1, 0.1],
  [0.1, 0.8, 0.2, 0.1, 1],
];
const shape = ({ nodes }: { nodes: readonly { id: string; level: number; children: readonly string[] }[] }) =>
  nodes.map(({ id, level, children }) => [id, level, ...children]);

test("pairs of the most similar come first; who is left over goes up as it is", () => {
  expect(shape(planTree(leaves, 2, bySimilarity(similarity)))).toEqual([
    ["a+d", 1, "a", "d"],
    ["b+e", 1, "b", "e"],
    ["a+c+d", 2, "a+d", "c"],
    ["a+b+c+d+e", 3, "a+c+d", "b+e"],
  ]);
});

test("threes, even groups, and the order of the tasks", () => {
  expect(groupSizes(7, 3)).toEqual([3, 2, 2]);
  expect(shape(planTree(leaves, 3, bySimilarity(similarity)))).toEqual([
    ["a+c+d", 1, "a", "c", "d"],
    ["b+e", 1, "b", "e"],
    ["a+b+c+d+e", 2, "a+c+d", "b+e"],
  ]);
  expect(shape(planTree(leaves, 2, byOrder))).toEqual([
    ["a+b", 1, "a", "b"],
    ["c+d", 1, "c", "d"],
    ["a+b+c+d", 2, "a+b", "c+d"],
    ["a+b+c+d+e", 3, "a+b+c+d", "e"],
  ]);
  expect(shape(planTree(leaves, 9, byOrder))).toEqual([["a+b+c+d+e", 1, ...leaves]]);
  expect(() => planTree(leaves, 1, byOrder)).toThrow("at least two");
});

test("a tree that the user wrote, and what is wrong with one", () => {
  expect(
    shape(
      nestedTree(leaves, [
        ["e", "a"],
        ["b", ["c", "d"]],
      ]),
    ),
  ).toEqual([
    ["a+e", 1, "e", "a"],
    ["c+d", 1, "c", "d"],
    ["b+c+d", 2, "b", "c+d"],
    ["a+b+c+d+e", 3, "a+e", "b+c+d"],
  ]);
  expect(() => nestedTree(leaves, [["a", "b"], "c", "d"])).toThrow('"e" is missing');
  expect(() => nestedTree(leaves, ["a", "b", "c", "d", "e", "a"])).toThrow("twice");
  expect(() => nestedTree(leaves, ["a", "x"])).toThrow('"x" is not among');
});

test("every leaf is in the tree once, whatever the fan-in", () => {
  for (let n = 2; n <= 16; n++) {
    const names = Array.from({ length: n }, (_, i) => `t${i}`);
    for (let fanIn = 2; fanIn <= n; fanIn++) {
      const { nodes } = planTree(names, fanIn, byOrder);
      expect([...nodes.at(-1)!.tasks]).toEqual(names);
      expect(nodes.flatMap(({ children }) => children).sort()).toEqual(
        [...names, ...nodes.slice(0, -1).map(({ id }) => id)].sort(),
      );
      for (const { children } of nodes) expect(children.length).toBeLessThanOrEqual(fanIn);
    }
  }
});

test("a flattened tree multiplies the coefficients along each path", () => {
  const ab = flatten(
    [leafMerge("a"), leafMerge("b")],
    new Map([
      ["x", [0.5, 0.25]],
      ["y", [0.1, 0.2]],
    ]),
  );
  // c changes z, which neither a nor b does.
  const root = flatten(
    [ab, leafMerge("c")],
    new Map([
      ["x", [2, 3]],
      ["y", [4, 5]],
      ["z", [6, 7]],
    ]),
  );
  expect(root.leaves).toEqual(["a", "b", "c"]);
  expect(coefficientsIn(root, "x")).toEqual([1, 0.5, 3]);
  expect(coefficientsIn(root, "y")).toEqual([0.4, 0.8, 5]);
  expect(coefficientsIn(root, "z")).toEqual([0, 0, 7]);
  expect(coefficientsIn(root, "constructor")).toEqual([0, 0, 0]);
});

test("cosines of a Gram matrix, summed over layers", () => {
  const total = totalGram([{ gram: [1, 0, 0, 3] }, { gram: [3, 2, 2, 1] }]);
  expect(total).toEqual([4, 2, 2, 4]);
  expect(cosines(total)).toEqual([
    [1, 0.5],
    [0.5, 1],
  ]);
  expect(cosines([0, 0, 0, 1])).toEqual([
    [1, 0],
    [0, 1],
  ]);
});

test("ties of similarity go to the earlier task", () => {
  const alike = leaves.map((_, i) => leaves.map((_other, j) => (i === j ? 1 : 0.5)));
  expect(shape(planTree(leaves, 2, bySimilarity(alike)))).toEqual([
    ["a+b", 1, "a", "b"],
    ["c+d", 1, "c", "d"],
    ["a+b+c+d", 2, "a+b", "c+d"],
    ["a+b+c+d+e", 3, "a+b+c+d", "e"],
  ]);
});
