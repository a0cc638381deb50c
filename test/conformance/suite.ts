import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { add, engine, gather, grads, memory, mul, slice, sum, tensor, tensor1d, tensor2d, tensor4d, tidy, variableGrads, variable, type Tensor, type Tensor1D, type Tensor2D } from "@tensorflow/tfjs-core";
import { describe, expect, test, beforeAll } from "vitest";
import { startEngine, type EngineName } from "../../src/backend/index.js";
import { openFamily, openMember } from "../../src/checkpoint/family.js";
import { applyGate, makeTable, throughGate, type Table } from "../../src/merge/table.js";
import { mergeForward, mergeGradient, mergeTensor } from "../../src/merge/op.js";
import { loadTaskVectors, mergeWeights, type TaskVectors } from "../../src/merge/vectors.js";
import { bert } from "../../src/models/bert.js";
import { forward, logits, type Head } from "../../src/models/index.js";
import * as ops from "../../src/models/ops.js";
import type { Model, TokenBatch } from "../../src/models/types.js";
import { loadHead } from "../../src/run/prepare.js";
import type { Batch } from "../../src/tasks/batches.js";
import { loadTokenizer } from "../../src/tasks/tokenize.js";
import { loadTasks } from "../../src/tasks/registry.js";
import { readExamples } from "../../src/tasks/files.js";
import { batchLoss, coefficientGradient, type Job } from "../../src/train/step.js";
import { packageFolder } from "../../src/package.js";
import { golden, hasShared, realFamily, relativeError, shared } from "../helpers.js";

interface GoldenOp { inputs: Record<string, number[][]>; y: number[][]; dy: number[][]; gradients: (number[] | number[][])[]; ids?: number[]; mask?: number[][]; heads?: number }
interface GoldenBatch {
  task: string; labels: number[]; choices: number | null; ids: number[][]; types: number[][]; lengths: number[];
  base: number[][]; individual: number[][]; logits: number[][]; loss: number; gradient: number[][];
}
interface GoldenFamily { tasks: string[]; layers: string[]; maxLength: number; batches: GoldenBatch[] }

const flat = (nested: unknown): number[] => (nested as number[][]).flat(1);
const toTensor = (rows: number[] | number[][]): Tensor => tensor(rows as number[][]);

/** The table that scripts/golden/make.py uses. */
const goldenTable = (rows: number, columns: number): Table => makeTable(rows, columns, (r, c) => Math.fround(0.1 + 0.05 * ((r * 7 + c * 3) % 11)));

function tokens({ ids, types, lengths }: GoldenBatch): TokenBatch {
  const length = ids[0]!.length;
  const mask = Uint8Array.from(lengths.flatMap((n) => ids[0]!.map((_, i) => (i < n ? 1 : 0))));
  return { size: ids.length, length, ids: Int32Array.from(ids.flat()), types: Int32Array.from(types.flat()), mask };
}

const toBatch = (g: GoldenBatch): Batch => ({ tokens: tokens(g), labels: g.labels, choices: g.choices ?? undefined });

interface Loaded { model: Model; vectors: TaskVectors; heads: Head[]; golden: GoldenFamily; folder: string; dispose(): void }

async function load(folder: string, name: string): Promise<Loaded> {
  const data = golden<GoldenFamily>(`family-${name}`);
  const base = await openMember("base", join(folder, "base"), bert.canonical);
  const model = bert.build(base.checkpoint.config);
  const family = await openFamily(base, data.tasks.map((task) => ({ task, folder: join(folder, "experts", task) })), bert.canonical);
  const vectors = await loadTaskVectors(family, [...model.parameters.keys()], "tensor");
  const heads: Head[] = [];
  for (const expert of family.experts) heads.push(await loadHead(expert, bert.head));
  await family.close();
  return { model, vectors, heads, golden: data, folder, dispose: () => { vectors.dispose(); heads.forEach((h) => [h.weight, h.bias].forEach((t) => t.dispose())); } };
}

function opTests(tolerance: number): void {
  const data = golden<Record<string, GoldenOp>>("ops");
  const run: Record<string, (inputs: Tensor[], g: GoldenOp) => Tensor> = {
    linear: ([x, w, b]) => ops.linear(x as Tensor2D, w as Tensor2D, b as Tensor1D),
    gelu: ([x]) => ops.gelu(x as Tensor2D),
    layerNorm: ([x, s, b]) => ops.layerNorm(x as Tensor2D, s as Tensor1D, b as Tensor1D, 1e-12),
    rows: ([t], g) => ops.rows(t as Tensor2D, tensor1d(g.ids!, "int32")),
    attention: ([q, k, v], g) => {
      const bias = g.mask!.flat().map((seen) => (seen ? 0 : -3.4028234663852886e38));
      return ops.attention(q as Tensor2D, k as Tensor2D, v as Tensor2D, tensor4d(bias, [3, 1, 1, 4]), { size: 3, length: 4, heads: g.heads! });
    },
  };
  test.each(Object.keys(run))("%s equals PyTorch, value and gradient", async (name) => {
    const g = data[name]!;
    const inputs = Object.values(g.inputs).map((values) => toTensor(values));
    const y = tidy(() => run[name]!(inputs, g));
    expect(relativeError(await y.data(), flat(g.y))).toBeLessThan(tolerance);
    const gradients = tidy(() => grads((...xs: Tensor[]) => run[name]!(xs, g))(inputs, toTensor(g.dy)));
    for (const [i, gradient] of gradients.entries()) expect(relativeError(await gradient.data(), flat(g.gradients[i]))).toBeLessThan(tolerance);
    [y, ...inputs, ...gradients].forEach((t) => t.dispose());
  });

  interface Loss { value: number; gradient: number[][] }
  const losses = golden<{ logits: number[][]; labels: number[]; crossEntropy: Loss; entropy: Loss }>("losses");
  const oneHot = () => tensor2d(losses.labels.map((label) => [0, 1, 2, 3].map((c) => (c === label ? 1 : 0))));
  test.each([
    ["crossEntropy", losses.crossEntropy, (z: Tensor) => ops.crossEntropy(z as Tensor2D, oneHot())],
    ["entropy", losses.entropy, (z: Tensor) => ops.entropy(z as Tensor2D)],
  ] as const)("%s equals PyTorch, value and gradient", async (_, expected, loss) => {
    const z = toTensor(losses.logits);
    const { value, grads: [gradient] } = tidy(() => engine().gradients(() => loss(z), [z]));
    expect((await value.data())[0]).toBeCloseTo(expected.value, 5);
    expect(relativeError(await gradient!.data(), flat(expected.gradient))).toBeLessThan(tolerance);
    [z, value, gradient!].forEach((t) => t.dispose());
  });
}

function mergeTests(): void {
  test("the merge op equals the sum written out, value and gradient", async () => {
    const [k, n] = [5, 12];
    const numbers = (seed: number, count: number) => Array.from({ length: count }, (_, i) => Math.fround(Math.sin(seed + i * 1.7)));
    const [base, deltas, c, dy] = [numbers(1, n), numbers(2, k * n), numbers(3, k), numbers(4, n)];
    const expected = base.map((b, j) => b + c.reduce((s, ci, i) => s + ci * deltas[i * n + j]!, 0));
    const expectedGradient = c.map((_, i) => dy.reduce((s, d, j) => s + d * deltas[i * n + j]!, 0));
    const [tb, td, tc, tdy] = [tensor2d(base, [3, 4]), tensor2d(deltas, [k, n]), tensor1d(c), tensor2d(dy, [3, 4])];
    const out = mergeForward(tb, td, tc);
    expect(out.shape).toEqual([3, 4]);
    expect(relativeError(await out.data(), expected)).toBeLessThan(1e-6);
    expect(relativeError(await mergeGradient(tdy, td).data(), expectedGradient)).toBeLessThan(1e-6);
    const viaTape = tidy(() => grads((row) => mergeTensor(tb, td, row as Tensor1D))([tc], tdy)[0]!);
    expect(relativeError(await viaTape.data(), expectedGradient)).toBeLessThan(1e-6);
    [tb, td, tc, tdy, out, viaTape].forEach((t) => t.dispose());
  });

  test("between forward and backward nothing of size k × N is kept", () => {
    const held = (k: number): number => {
      const n = 4096;
      const [base, deltas, row] = [tensor1d(new Float32Array(n)), tensor2d(new Float32Array(k * n), [k, n]), tensor1d(new Float32Array(k))];
      let bytes = 0;
      const before = memory().numBytes;
      const [gradient] = grads((c) => {
        const merged = mergeTensor(base, deltas, c as Tensor1D);
        bytes = memory().numBytes - before;
        return sum(mul(merged, 1));
      })([row]);
      [base, deltas, row, gradient!].forEach((t) => t.dispose());
      return bytes;
    };
    expect(held(16) - held(2)).toBeLessThan(1024);
  });
}

function familyTests(where: () => Loaded, dataFolder: string, tolerance: number): void {
  test("texts become the ids transformers makes of them", async () => {
    const { golden: data, folder } = where();
    const encoder = await loadTokenizer(join(folder, "base"), data.maxLength);
    const tasks = await loadTasks(dataFolder);
    for (const g of data.batches) {
      const examples = await readExamples(join(dataFolder, g.task, "validation.jsonl"), tasks.get(g.task)!);
      const encoded = examples.slice(0, g.labels.length).flatMap(({ texts }) => texts.map((text) => encoder.encode(text)));
      expect(encoded.map(({ ids }) => ids)).toEqual(g.ids.map((row, i) => row.slice(0, g.lengths[i])));
      expect(encoded.map(({ types }) => types)).toEqual(g.types.map((row, i) => row.slice(0, g.lengths[i])));
    }
  });

  test("the same tensors are changed by the experts", () => {
    expect(where().vectors.layers.map(({ id }) => id).sort()).toEqual([...where().golden.layers].sort());
  });

  test("zero coefficients give the base's features, coefficient 1 the expert's logits", async () => {
    const { model, vectors, heads, golden: data } = where();
    const [n, k] = [vectors.layers.length, data.tasks.length];
    for (const [i, g] of data.batches.entries()) {
      const zero = mergeWeights(vectors, makeTable(n, k, () => 0));
      const features = tidy(() => slice(forward(model, zero.weights, tokens(g)), [0, 0], [-1, 8]));
      expect(relativeError(await features.data(), flat(g.base))).toBeLessThan(tolerance);
      const one = mergeWeights(vectors, makeTable(n, k, (_, c) => (c === i ? 1 : 0)));
      const scores = tidy(() => logits(forward(model, one.weights, tokens(g)), heads[i]!, g.choices ?? undefined));
      expect(relativeError(await scores.data(), flat(g.individual))).toBeLessThan(tolerance);
      features.dispose();
      scores.dispose();
      zero.dispose();
      one.dispose();
    }
  });

  test("merged logits, loss and ∂L/∂w equal PyTorch's for one batch of each task", async () => {
    const { model, vectors, heads, golden: data } = where();
    const k = data.tasks.length;
    const rowByName = new Map(data.layers.map((name, row) => [name, row]));
    // Rows are compared by name: the two sides list the layers in different orders.
    const order = vectors.layers.map(({ id }) => rowByName.get(id)!);
    const reference = goldenTable(order.length, k);
    const raw: Table = { ...reference, values: Float64Array.from(order.flatMap((row) => [...reference.values.subarray(row * k, (row + 1) * k)])) };
    const gated = applyGate(raw, "tanh");
    for (const [i, g] of data.batches.entries()) {
      const merged = mergeWeights(vectors, gated);
      const scores = tidy(() => logits(forward(model, merged.weights, tokens(g)), heads[i]!, g.choices ?? undefined));
      expect(relativeError(await scores.data(), flat(g.logits))).toBeLessThan(tolerance);
      scores.dispose();
      merged.dispose();
      const { gradient, losses } = await coefficientGradient(model, vectors, gated, [{ head: heads[i]!, batch: toBatch(g), weight: 1 }], "cross-entropy");
      expect(Math.abs(losses[0]! - g.loss) / g.loss).toBeLessThan(tolerance);
      const expected = order.flatMap((row) => g.gradient[row]!);
      expect(relativeError(throughGate(gradient, raw, "tanh").values, expected)).toBeLessThan(tolerance);
    }
  });
}

function trainerTests(where: () => Loaded): void {
  const jobs = (count: number): Job[] => where().golden.batches.slice(0, count).map((g, i) => ({ head: where().heads[i]!, batch: toBatch(g), weight: 1 + i / 2 }));

  test("the step's gradient is that of one tape through mergeTensor", async () => {
    const { model, vectors } = where();
    const table = applyGate(goldenTable(vectors.layers.length, 5), "tanh");
    const { gradient, losses } = await coefficientGradient(model, vectors, table, jobs(3), "cross-entropy");
    const rows = variable(tensor2d(Float32Array.from(table.values), [table.rows, table.columns]));
    const result = variableGrads(() => {
      const merged = new Map(vectors.merged.map(({ name, base, deltas, row }) => {
        // Row `row` of the table as a product, so that only ops with a gradient are on the tape.
        const pick = tensor2d(Float32Array.from({ length: table.rows }, (_, i) => (i === row ? 1 : 0)), [table.rows, 1]);
        return [name, mergeTensor(base, deltas, sum<Tensor1D>(mul(rows as unknown as Tensor, pick), 0))];
      }));
      const weights = (name: string) => merged.get(name) ?? vectors.base(name);
      return jobs(3).map((job) => mul(batchLoss(model, weights, job, "cross-entropy"), job.weight)).reduce((a, b) => add(a, b)) as never;
    }, [rows]);
    expect(losses.reduce((a, b) => a + b)).toBeCloseTo((await result.value.data())[0]!, 4);
    expect(relativeError(gradient.values, await result.grads[rows.name]!.data())).toBeLessThan(1e-5);
    [result.value, rows, ...Object.values(result.grads)].forEach((t) => t.dispose());
  });

  test("the gradient agrees with finite differences", async () => {
    const { model, vectors } = where();
    const table = applyGate(goldenTable(vectors.layers.length, 5), "tanh");
    const total = async (values: Float64Array) => (await coefficientGradient(model, vectors, { ...table, values }, jobs(2), "cross-entropy")).losses.reduce((a, b) => a + b);
    const { gradient } = await coefficientGradient(model, vectors, table, jobs(2), "cross-entropy");
    // Along the gradient itself, where the change is largest and rounding matters least.
    const norm = Math.hypot(...gradient.values);
    const step = 0.02;
    const along = (sign: number) => table.values.map((v, i) => v + (sign * step * gradient.values[i]!) / norm);
    const slope = ((await total(along(1))) - (await total(along(-1)))) / (2 * step);
    expect(Math.abs(slope - norm) / norm).toBeLessThan(0.01);
  });

  test("permuting experts permutes columns", async () => {
    const { model, vectors } = where();
    const k = 5;
    const table = applyGate(goldenTable(vectors.layers.length, k), "tanh");
    const column = (c: number) => (c + 2) % k;
    const permuted: TaskVectors = { ...vectors, merged: vectors.merged.map((m) => ({ ...m, deltas: gather(m.deltas, tensor1d([0, 1, 2, 3, 4].map(column), "int32")) })) };
    const permutedTable = makeTable(table.rows, k, (r, c) => table.values[r * k + column(c)]!);
    const a = await coefficientGradient(model, vectors, table, jobs(2), "cross-entropy");
    const b = await coefficientGradient(model, permuted, permutedTable, jobs(2), "cross-entropy");
    const expected = makeTable(table.rows, k, (r, c) => a.gradient.values[r * k + column(c)]!);
    expect(relativeError(b.gradient.values, expected.values)).toBeLessThan(1e-4);
    permuted.merged.forEach(({ deltas }) => deltas.dispose());
  });

  test("50 steps leave no tensor behind", async () => {
    const { model, vectors } = where();
    const table = applyGate(goldenTable(vectors.layers.length, 5), "tanh");
    const g = where().golden.batches[0]!;
    const two = { ...g, labels: g.labels.slice(0, 2), ids: g.ids.slice(0, 2), types: g.types.slice(0, 2), lengths: g.lengths.slice(0, 2) };
    const small = [{ head: where().heads[0]!, batch: toBatch(two), weight: 1 }];
    await coefficientGradient(model, vectors, table, small, "cross-entropy");
    const { numTensors, numBytes } = memory();
    for (let step = 0; step < 50; step++) {
      await coefficientGradient(model, vectors, table, small, step % 2 ? "cross-entropy" : "entropy");
      expect(memory().numTensors).toBe(numTensors);
    }
    expect(memory().numBytes).toBe(numBytes);
  });
}

/** The suite every engine must pass. `real` says whether the 22.7-million-parameter family is worth its time there. */
export async function conformance(name: EngineName, { tolerance = 1e-4, real = true }: { tolerance?: number; real?: boolean } = {}): Promise<void> {
  const problem = await startEngine(name).then(() => undefined, (error: Error) => error.message);
  if (problem !== undefined) console.log(`conformance of ${name} skipped: ${problem}`);
  describe.skipIf(problem !== undefined)(`${name}${problem === undefined ? "" : ` (skipped: ${problem})`}`, () => {
    describe("ops", () => opTests(1e-5));
    describe("merge", mergeTests);
    describe("the family that ships", () => {
      let mini: Loaded;
      beforeAll(async () => {
        mini = await load(join(packageFolder, "checkpoints", "mini"), "mini");
        return () => mini.dispose();
      });
      familyTests(() => mini, join(packageFolder, "data", "mini"), tolerance);
      trainerTests(() => mini);
    });
    const reason = !hasShared ? "../shared is not here" : real ? undefined : "too slow on this engine";
    if (reason !== undefined && problem === undefined) console.log(`${name}, MiniLM skipped: ${reason}`);
    describe.skipIf(reason !== undefined)(`MiniLM${reason === undefined ? "" : ` (skipped: ${reason})`}`, () => {
      let minilm: Loaded;
      beforeAll(async () => {
        if (!existsSync(join(realFamily, "base"))) execFileSync("bash", [join(shared, "checkpoints", "minilm", "assemble"), realFamily]);
        minilm = await load(realFamily, "minilm");
        return () => minilm.dispose();
      });
      familyTests(() => minilm, join(shared, "data", "text"), tolerance);
    });
  });
}
