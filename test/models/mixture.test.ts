import { engine, onesLike, setBackend, tensor2d, tidy, type Tensor } from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { mixtureOfExperts } from "../../src/models/mixture.js";
import { activations } from "../../src/models/layers.js";
import { along } from "../../src/models/ops.js";
import type { Weights } from "../../src/models/types.js";
import "@tensorflow/tfjs-backend-cpu";

beforeAll(async () => {
  await setBackend("cpu");
});

const [width, inner, experts] = [2, 1, 3];
const silu = (x: number) => x / (1 + Math.exp(-x));

/** Expert e answers silu(x₀) · x₁ · (e + 1) in both places; the router's logits are 4, 3 and −5 times x₀. */
const values = {
  "l.mlp.gate.weight": [
    [4, 0],
    [3, 0],
    [-5, 0],
  ],
  ...Object.fromEntries(
    Array.from({ length: experts }, (_, e) => [
      [`l.mlp.experts.${e}.gate_proj.weight`, [[1, 0]]],
      [`l.mlp.experts.${e}.up_proj.weight`, [[0, 1]]],
      [`l.mlp.experts.${e}.down_proj.weight`, [[e + 1], [e + 1]]],
    ]).flat(),
  ),
};

const summed = (y: Tensor) => along([y], [onesLike(y)]);

function run(isNormalised: boolean, x: number[][]) {
  const mixture = { experts, chosen: 2, inner, isNormalised };
  const { shapes, run: forward } = mixtureOfExperts({ width, mixture, activation: activations.silu }, "l");
  const names = shapes.map(([name]) => name);
  expect(names.sort()).toEqual(Object.keys(values).sort());
  return tidy(() => {
    const tensors = names.map((name) => tensor2d(values[name as keyof typeof values]));
    const weights: Weights = (name: string) => tensors[names.indexOf(name)]!;
    const asked: string[] = [];
    weights.onLinearInput = (name, input) => void asked.push(`${name} ${input.shape[0]}`);
    const input = tensor2d(x);
    const { value, grads } = engine().gradients(() => summed(forward(weights, input)), [...tensors, input]);
    const gradients = Object.fromEntries(
      names.map((name, i) => [name, grads[i] && [...grads[i].dataSync()]]),
    );
    return { sum: value.dataSync()[0]!, gradients, asked };
  });
}

test("a token's answer is its likeliest experts', each times what the router holds of it", () => {
  const logits = [4, 3, -5];
  const exponents = logits.map(Math.exp);
  const total = exponents.reduce((a, b) => a + b);
  const two = exponents[0]! + exponents[1]!;
  // The sum over both places.
  const each = 2 * silu(1) * 2;
  const weighed = (exponents[0]! + 2 * exponents[1]!) * each;
  expect(run(true, [[1, 2]]).sum).toBeCloseTo(weighed / two, 5);
  expect(run(false, [[1, 2]]).sum).toBeCloseTo(weighed / total, 5);
});

test("an expert that no token is sent to is not asked, and has no gradient; one reads its tokens alone", () => {
  const { asked, gradients } = run(true, [
    [1, 2],
    [2, 1],
    [-1, 1],
  ]);
  const tokens = (e: number) => asked.filter((line) => line.startsWith(`l.mlp.experts.${e}.up`));
  expect([0, 1, 2].map(tokens)).toEqual([
    ["l.mlp.experts.0.up_proj.weight 2"],
    ["l.mlp.experts.1.up_proj.weight 3"],
    ["l.mlp.experts.2.up_proj.weight 1"],
  ]);
  const without = run(true, [[1, 2]]).gradients;
  expect(without["l.mlp.experts.2.up_proj.weight"]).toBeUndefined();
  expect(without["l.mlp.experts.1.up_proj.weight"]).toBeDefined();
  expect(gradients["l.mlp.experts.2.up_proj.weight"]).toBeDefined();
});

test("the router learns through what the chosen count for", () => {
  const step = 1e-3;
  const { gradients } = run(true, [[1, 2]]);
  const gate = values["l.mlp.gate.weight"];
  const before = gate[0]![0]!;
  gate[0]![0] = before + step;
  const up = run(true, [[1, 2]]).sum;
  gate[0]![0] = before - step;
  const down = run(true, [[1, 2]]).sum;
  gate[0]![0] = before;
  expect(gradients["l.mlp.gate.weight"]![0]).toBeCloseTo((up - down) / (2 * step), 2);
  // The third is not chosen: nothing changes with it.
  expect(gradients["l.mlp.gate.weight"]!.slice(4)).toEqual([0, 0]);
});
