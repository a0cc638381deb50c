import { expect, test } from "vitest";
import { candidates } from "../../src/compare/candidates.js";
import { chooseMethods, knownData } from "../../src/mergers/choose.js";
import { adapter, model, type Tensors } from "./small.js";

/** Two layers of 2 × 2, the base's ones, and a table that nobody asks about. */
const layers = (a: readonly number[], b: readonly number[]): Tensors => ({
  "layers.0.q.weight": [[2, 2], ...a.map((x) => 1 + x)],
  "layers.1.q.weight": [[2, 2], ...b.map((x) => 1 + x)],
  "embed.weight": [[64, 1], ...Array.from({ length: 64 }, () => 1 + (a[0] ?? 0))],
});
const none = [0, 0, 0, 0];
const base = await model("base", layers(none, none));

test("cosines of the task vectors, over all layers together and no table", async () => {
  const experts = [
    await model("a", layers([1, 0, 0, 0], [0, 0, 0, 1])),
    await model("b", layers([0, 1, 0, 0], [0, 0, 0, 1])),
    await model("c", layers([-1, 0, 0, 0], none)),
  ];
  const { cosine, experts: count, width, adapters } = await chooseMethods(base, experts, "none");
  // ⟨a, b⟩ = 1 of √2 · √2; ⟨a, c⟩ = −1 of √2; ⟨b, c⟩ = 0.
  const [ab, ac] = [1 / 2, -Math.SQRT1_2];
  expect(cosine!.least).toBeCloseTo(ac, 6);
  expect(cosine!.most).toBeCloseTo(ab, 6);
  expect(cosine!.mean).toBeCloseTo((ab + ac) / 3, 6);
  expect([count, width, adapters]).toEqual([3, 2, false]);
});

test("three for every kind of data, each of them a method that compare knows", async () => {
  const experts = [
    await model("a", layers([1, 0, 0, 0], none)),
    await model("b", layers([0, 1, 0, 0], none)),
  ];
  const known = new Set(candidates.map(({ name }) => name));
  const firsts: string[] = [];
  for (const data of knownData) {
    const { choices } = await chooseMethods(base, experts, data);
    expect(choices).toHaveLength(3);
    for (const { method } of choices) expect(known).toContain(method);
    firsts.push(choices[0]!.method);
  }
  expect(firsts).toEqual(["tsv-m", "supermerge-distillation-tsv-m", "supermerge-tsv-m"]);
});

test("experts that changed nearly the same are averaged first", async () => {
  const experts = [
    await model("a", layers([1, 1, 0, 0], [1, 0, 0, 0])),
    await model("b", layers([1, 1, 0.1, 0], [1, 0, 0, 0])),
  ];
  const { choices } = await chooseMethods(base, experts, "labels");
  expect(choices.map(({ method }) => method)).toEqual([
    "average",
    "supermerge-tsv-m",
    "supermerge-distillation-tsv-m",
  ]);
});

test("of wide layers nothing is named that takes their singular vectors", async () => {
  const wide = (x: number): Tensors => ({
    "layers.0.q.weight": [[801, 801], ...Array.from({ length: 801 * 801 }, (_, i) => (i === 0 ? x : 0))],
  });
  const own = await model("wide", wide(0));
  const experts = [await model("a", wide(1)), await model("b", wide(-1))];
  for (const data of knownData) {
    const { choices } = await chooseMethods(own, experts, data);
    expect(choices).toHaveLength(3);
    expect(choices.filter(({ method }) => /tsv|iso|cart|knots|wudi/.test(method))).toEqual([]);
  }
});

test("adapters are seen as models; models without a layer in common are refused", async () => {
  const lora: Tensors = {
    "layers.0.q.lora_A.weight": [[1, 2], 1, 0],
    "layers.0.q.lora_B.weight": [[2, 1], 1, 1],
  };
  const chosen = await chooseMethods(base, [await adapter("l", lora), await adapter("m", lora)], "none");
  expect(chosen.adapters).toBe(true);
  expect(chosen.cosine!.mean).toBeCloseTo(1, 6);
  const other = await model("other", { "layers.0.q.weight": [[3, 2], 1, 2, 3, 4, 5, 6] });
  await expect(chooseMethods(base, [other], "none")).rejects.toThrow(/no layer in common/);
});
