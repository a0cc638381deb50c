import {
  engine,
  grads,
  tensor1d,
  tensor2d,
  tidy,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { expect, test } from "vitest";
import { attention } from "../../src/models/attention.js";
import { attentionBias } from "../../src/models/layout.js";
import { activations } from "../../src/models/layers.js";
import * as lossOps from "../../src/models/losses.js";
import { layerNorm } from "../../src/models/norms.js";
import * as ops from "../../src/models/ops.js";
import { golden, relativeError } from "../helpers.js";
import { flat, toTensor } from "./load.js";

interface GoldenOp {
  inputs: Record<string, number[][]>;
  y: number[][];
  dy: number[][];
  gradients: (number[] | number[][])[];
  ids?: number[];
  mask?: number[][];
  heads?: number;
}

/** Every op the models use, value and gradient, against PyTorch's. */
export function opTests(tolerance: number): void {
  const data = golden<Record<string, GoldenOp>>("ops");
  // Query, key and value are one tensor here, side by side, and so are their gradients.
  const beside = (parts: number[][][]) => parts[0]!.map((_, r) => parts.flatMap((part) => part[r]!));
  const { attention: g } = data as { attention: GoldenOp };
  data["attention"] = {
    ...g,
    inputs: { projected: beside(Object.values(g.inputs)) },
    gradients: [beside(g.gradients as number[][][])],
  };
  const run: Record<string, (inputs: Tensor[], g: GoldenOp) => Tensor> = {
    linear: ([x, w, b]) => ops.affine(x as Tensor2D, [{ weight: w as Tensor2D, bias: b as Tensor1D }]),
    gelu: ([x]) => activations.gelu(x as Tensor2D),
    layerNorm: ([x, s, b]) => layerNorm(x as Tensor2D, s as Tensor1D, b as Tensor1D, 1e-12),
    rows: ([t], g) => ops.rows(t as Tensor2D, tensor1d(g.ids!, "int32")),
    // Two segments, cut after the first row.
    attention: ([projected], g) => {
      const segments = [g.mask!.slice(0, 1), g.mask!.slice(1)].map((rows) =>
        attentionBias({ size: rows.length, length: 4, mask: Uint8Array.from(rows.flat()) }),
      );
      return attention(projected as Tensor2D, segments, g.heads!);
    },
  };
  test.each(Object.keys(run))("%s equals PyTorch, value and gradient", async (name) => {
    const g = data[name]!;
    const inputs = Object.values(g.inputs).map((values) => toTensor(values));
    const y = tidy(() => run[name]!(inputs, g));
    expect(relativeError(await y.data(), flat(g.y))).toBeLessThan(tolerance);
    const gradients = tidy(() => grads((...xs: Tensor[]) => run[name]!(xs, g))(inputs, toTensor(g.dy)));
    for (const [i, gradient] of gradients.entries())
      expect(relativeError(await gradient.data(), flat(g.gradients[i]))).toBeLessThan(tolerance);
    [y, ...inputs, ...gradients].forEach((t) => t.dispose());
  });

  test.each([3, 1])("rows: what falls into %i of them is added up", async (count) => {
    const ids = Array.from({ length: 70 }, (_, i) => (i * i) % count);
    const dy = ids.map((_, i) => [i + 0.5, 1 - 2 * i]);
    const [gradient] = tidy(() =>
      grads((table: Tensor) => ops.rows(table as Tensor2D, tensor1d(ids, "int32")))(
        [tensor2d(new Float32Array(2 * count), [count, 2])],
        tensor2d(dy),
      ),
    );
    const expected = Array.from({ length: count }, (_, row) => row).flatMap((row) =>
      [0, 1].map((column) => dy.reduce((sum, x, i) => sum + (ids[i] === row ? x[column]! : 0), 0)),
    );
    expect([...(await gradient!.data())]).toEqual(expected);
    gradient!.dispose();
  });

  interface Loss {
    value: number;
    gradient: number[][];
  }
  const losses = golden<{
    logits: number[][];
    labels: number[];
    crossEntropy: Loss;
    entropy: Loss;
    guardedEntropy: Loss;
    divergence: Loss & { told: number[][] };
  }>("losses");
  const oneHot = () => tensor2d(losses.labels.map((label) => [0, 1, 2, 3].map((c) => (c === label ? 1 : 0))));
  test.each([
    ["crossEntropy", losses.crossEntropy, (z: Tensor) => lossOps.crossEntropy(z as Tensor2D, oneHot())],
    ["entropy", losses.entropy, (z: Tensor) => lossOps.entropy(z as Tensor2D)],
    [
      "divergence",
      losses.divergence,
      (z: Tensor) => lossOps.divergence(z as Tensor2D, tensor2d(losses.divergence.told)),
    ],
    ["guardedEntropy", losses.guardedEntropy, (z: Tensor) => lossOps.guardedEntropy(z as Tensor2D)],
  ] as const)("%s equals PyTorch, value and gradient", async (_, expected, loss) => {
    const z = toTensor(losses.logits);
    const {
      value,
      grads: [gradient],
    } = tidy(() => engine().gradients(() => loss(z), [z]));
    expect((await value.data())[0]).toBeCloseTo(expected.value, 5);
    expect(relativeError(await gradient!.data(), flat(expected.gradient))).toBeLessThan(tolerance);
    [z, value, gradient!].forEach((t) => t.dispose());
  });
}
