import { firstOf } from "../../scripts/rows-batch.js";
import { toBatch as joined } from "../../src/tasks/batches.js";
import {
  add,
  clone,
  dispose,
  memory,
  mul,
  reshape,
  sum,
  tensor2d,
  variable,
  variableGrads,
  type Tensor,
  type Tensor1D,
} from "@tensorflow/tfjs-core";
import { expect, test } from "vitest";
import { adamDefaults, adamW, zeroMoments } from "../../src/train/adamw.js";
import { applyGate, makeTable, throughGate, gates, constantTables } from "../../src/merge/table.js";
import { mergeTensor } from "../../src/merge/op.js";
import { residencies } from "../../src/merge/residency.js";
import type { StreamedPart } from "../../src/merge/stream.js";
import type { TaskVectors } from "../../src/merge/vectors.js";
import { forward } from "../../src/models/index.js";
import { modelPasses, type StepJob, type PassJob } from "../../src/train/passes.js";
import { jobLosses } from "../../src/train/losses.js";
import { coefficientGradient } from "../../src/train/step.js";
import { withTeacher } from "../../src/evaluate/teacher.js";
import { relativeError } from "../helpers.js";
import { goldenTable, load, toBatch, type Loaded } from "./load.js";

/** The step and the trainer on a loaded family. */
export function trainerTests(where: () => Loaded, slow: boolean): void {
  /** Properties that follow from goldens which a slow engine is held to as well: passed over there. */
  const property = test.skipIf(slow);
  const jobs = (count: number): StepJob[] =>
    where()
      .golden.batches.slice(0, count)
      .map((g, i) => ({ head: where().heads[i]!, batch: toBatch(g), weight: 1 + i / 2 }));

  property("the step's gradient is that of one tape through mergeTensor", async () => {
    const { model, vectors } = where();
    const table = applyGate(goldenTable(vectors.layers.length, 5), "tanh");
    const { gradient, losses } = await coefficientGradient(
      { model, vectors, table },
      jobs(3),
      "cross-entropy",
    );
    const rows = variable(tensor2d(Float32Array.from(table.values), [table.rows, table.columns]));
    const parts = new Map<string, StreamedPart>();
    for await (const part of vectors.stream([...vectors.tensors.keys()].map((name) => ({ name })))) {
      // Tables that were changed lie in host memory, and their part is gone with the next.
      const { tensor, base, deltas } = part;
      parts.set(tensor.name, {
        ...part,
        base: clone(base),
        deltas: deltas && { ...deltas, data: clone(deltas.data) },
      });
    }
    const result = variableGrads(() => {
      const merged = new Map(
        [...parts].map(([name, { tensor, base, deltas }]) => {
          const shaped = reshape(base, [...tensor.shape]);
          if (!deltas) return [name, shaped];
          // The row's coefficients of the experts that changed the tensor, as a product: only ops with
          // a gradient are on the tape.
          const pick = tensor2d(
            Float32Array.from({ length: table.rows }, (_, i) => (i === tensor.row ? 1 : 0)),
            [table.rows, 1],
          );
          const all = sum<Tensor1D>(mul(rows as unknown as Tensor, pick), 0);
          const chosen = tensor2d(
            deltas.experts.map((e) => Array.from({ length: table.columns }, (_, i) => (i === e ? 1 : 0))),
          );
          return [name, mergeTensor(shaped, deltas, sum<Tensor1D>(mul(chosen, reshape(all, [1, -1])), 1))];
        }),
      );
      const features = forward(
        model,
        (name) => merged.get(name)!,
        jobs(3).flatMap(({ batch }) => batch.rows),
      );
      return sum(jobLosses(features, jobs(3), "cross-entropy").reduce((a, b) => add(a, b))) as never;
    }, [rows]);
    dispose([...parts.values()].flatMap(({ base, deltas }) => [base, ...(deltas ? [deltas.data] : [])]));
    expect(losses.reduce((a, b) => a + b)).toBeCloseTo((await result.value.data())[0]!, 4);
    expect(relativeError(gradient.values, await result.grads[rows.name]!.data())).toBeLessThan(1e-5);
    [result.value, rows, ...Object.values(result.grads)].forEach((t) => t.dispose());
  });

  property("the gradient agrees with finite differences", async () => {
    const { model, vectors } = where();
    const table = applyGate(goldenTable(vectors.layers.length, 5), "tanh");
    const total = async (values: Float64Array) =>
      (
        await coefficientGradient({ model, vectors, table: { ...table, values } }, jobs(2), "cross-entropy")
      ).losses.reduce((a, b) => a + b);
    const { gradient } = await coefficientGradient({ model, vectors, table }, jobs(2), "cross-entropy");
    // Along the gradient itself, where the change is largest and rounding matters least.
    const norm = Math.hypot(...gradient.values);
    const step = 0.02;
    const along = (sign: number) =>
      table.values.map((v, i) => v + (sign * step * gradient.values[i]!) / norm);
    const slope = ((await total(along(1))) - (await total(along(-1)))) / (2 * step);
    expect(Math.abs(slope - norm) / norm).toBeLessThan(0.01);
  });

  test(
    "distillation: nothing is lost where the merge is the expert, and elsewhere the gradient " +
      "agrees with finite differences",
    async () => {
      const { model, vectors, golden, heads } = where();
      const [g, ...others] = golden.batches;
      const width = g!.choices ?? 1;
      const batch = toBatch(g!);
      const kind = g!.choices === null ? ("classify" as const) : ("choose" as const);
      const validation = g!.labels.map((label, i) => ({
        kind,
        rows: batch.rows.slice(i * width, (i + 1) * width),
        label,
        length: Math.max(...batch.rows.slice(i * width, (i + 1) * width).map(({ ids }) => ids.length)),
      }));
      const [task] = await withTeacher(
        { model, vectors },
        [
          {
            id: g!.task,
            kind,
            metrics: ["accuracy"] as const,
            synthetic: true,
            head: heads[0],
            validation,
            test: [],
          },
        ],
        "validation",
      );
      const softLabels = task!.validation.map((example) => example.softLabels!);
      // What PyTorch's expert says of the batch.
      const expected = g!.individual.map((row) =>
        row.map((z) => Math.exp(z) / row.reduce((sum, other) => sum + Math.exp(other), 0)),
      );
      expect(relativeError(softLabels.flat(), expected.flat())).toBeLessThan(1e-4);
      expect(others.length).toBeGreaterThan(0);

      const job = [{ head: heads[0], batch: joined(task!.validation), weight: 1 }];
      const [rows, columns] = [vectors.layers.length, golden.tasks.length];
      const mine = await coefficientGradient(
        { model, vectors, table: constantTables.individual(rows, columns, 0) },
        job,
        "distillation",
      );
      expect(Math.abs(mine.losses[0]!)).toBeLessThan(1e-5);
      const table = applyGate(goldenTable(rows, columns), "tanh");
      const total = async (values: Float64Array) =>
        (await coefficientGradient({ model, vectors, table: { ...table, values } }, job, "distillation"))
          .losses[0]!;
      const { gradient } = await coefficientGradient({ model, vectors, table }, job, "distillation");
      const norm = Math.hypot(...gradient.values);
      expect(Math.hypot(...mine.gradient.values)).toBeLessThan(1e-3 * norm);
      const step = 0.02;
      const along = (sign: number) =>
        table.values.map((v, i) => v + (sign * step * gradient.values[i]!) / norm);
      expect(
        Math.abs(((await total(along(1))) - (await total(along(-1)))) / (2 * step) - norm) / norm,
      ).toBeLessThan(0.01);
    },
  );

  property("permuting experts permutes columns", async () => {
    const { model, vectors } = where();
    const k = 5;
    const table = applyGate(goldenTable(vectors.layers.length, k), "tanh");
    const column = (c: number) => (c + 2) % k;
    const place = (expert: number) => (expert + k - 2) % k;
    // Expert e moves to the column whose source it is: data stays, its label moves.
    const permuted: TaskVectors = {
      ...vectors,
      tensors: new Map(
        [...vectors.tensors].map(([name, tensor]) => [
          name,
          { ...tensor, experts: tensor.experts.map(place) },
        ]),
      ),
      async *stream(requests) {
        for await (const part of vectors.stream(requests))
          yield {
            ...part,
            deltas: part.deltas && { ...part.deltas, experts: part.deltas.experts.map(place) },
          };
      },
    };
    const permutedTable = makeTable(table.rows, k, (r, c) => table.values[r * k + column(c)]!);
    const a = await coefficientGradient({ model, vectors, table }, jobs(2), "cross-entropy");
    const b = await coefficientGradient(
      { model, vectors: permuted, table: permutedTable },
      jobs(2),
      "cross-entropy",
    );
    const expected = makeTable(table.rows, k, (r, c) => a.gradient.values[r * k + column(c)]!);
    expect(relativeError(b.gradient.values, expected.values)).toBeLessThan(1e-4);
  });

  // A slow engine follows the first few: its gradient is held by the tests above, the optimiser is the same code.
  const stepsFollowed = slow ? 4 : 20;
  test(`${stepsFollowed} steps follow PyTorch's losses`, async () => {
    const {
      model,
      vectors,
      golden: { training },
    } = where();
    const { lr, init, losses } = training!;
    let raw = makeTable(vectors.layers.length, 5, () => gates.tanh.inverse(init));
    let moments = zeroMoments(raw.values.length);
    // As the script does: the first two examples of every task, all of one weight.
    const all = jobs(5).map(({ head, batch }): StepJob => ({
      head,
      weight: 1,
      batch: firstOf(batch, 2),
    }));
    for (let step = 0; step <= stepsFollowed; step++) {
      const result = await coefficientGradient(
        { model, vectors, table: applyGate(raw, "tanh") },
        all,
        "cross-entropy",
      );
      const loss = result.losses.reduce((a, b) => a + b);
      expect(Math.abs(loss - losses[step]!) / losses[step]!, `step ${step}`).toBeLessThan(2e-3);
      ({ raw, moments } = adamW(raw, throughGate(result.gradient, raw, "tanh"), moments, {
        ...adamDefaults,
        lr,
      }));
    }
    if (!slow) expect(losses[stepsFollowed]!).toBeLessThan(losses[0]! / 2); // PyTorch's run learned something
  });

  test("passes hold the jobs in order, and no more tokens than they may", () => {
    const all = jobs(5);
    const order = (passes: PassJob[][]) =>
      passes.flat().flatMap(({ batch, index }) => batch.rows.map(() => index));
    expect(order(modelPasses(all))).toEqual(all.flatMap(({ batch }, i) => batch.rows.map(() => i)));
    expect(modelPasses(all, 1)).toHaveLength(all.reduce((n, { batch }) => n + batch.examples.length, 0));
    expect(
      modelPasses(all, 1)
        .flat()
        .reduce((sum, { weight }) => sum + weight, 0),
    ).toBeCloseTo(
      all.reduce((sum, { weight }) => sum + weight, 0),
      6,
    );
    expect(modelPasses(all, 1e9)).toHaveLength(1);
  });

  property("one pass or several, the same gradient", async () => {
    const { model, vectors } = where();
    const table = applyGate(goldenTable(vectors.layers.length, 5), "tanh");
    const together = await coefficientGradient({ model, vectors, table }, jobs(3), "cross-entropy");
    const parts = [];
    for (const job of jobs(3))
      parts.push(await coefficientGradient({ model, vectors, table }, [job], "cross-entropy"));
    const sum = parts.map(({ gradient }) => gradient.values).reduce((a, b) => a.map((x, i) => x + b[i]!));
    expect(relativeError(together.gradient.values, sum)).toBeLessThan(1e-5);
  });

  property("micro-batches add up to the same losses and gradient", async () => {
    const { model, vectors } = where();
    const table = applyGate(goldenTable(vectors.layers.length, 5), "tanh");
    const whole = await coefficientGradient({ model, vectors, table }, jobs(3), "cross-entropy");
    const small = await coefficientGradient(
      { model, vectors, table, microBatch: 60 },
      jobs(3),
      "cross-entropy",
    );
    expect(relativeError(small.losses, whole.losses)).toBeLessThan(1e-5);
    expect(relativeError(small.gradient.values, whole.gradient.values)).toBeLessThan(1e-5);
  });

  const places = residencies
    .flatMap((residency) => [false, true].map((blockwise) => ({ residency, blockwise })))
    .filter(({ residency, blockwise }) => residency !== "device" || blockwise);
  // A slow engine is asked the hardest: from disk, block by block.
  test.each(slow ? places.slice(-1) : places)(
    "$residency, by blocks: $blockwise: the same losses and gradient, and nothing left behind",
    async ({ residency, blockwise }) => {
      const { model, vectors, folder } = where();
      const table = applyGate(goldenTable(vectors.layers.length, 5), "tanh");
      const expected = await coefficientGradient({ model, vectors, table }, jobs(3), "cross-entropy");
      const { numTensors } = memory();
      const other = await load(folder, where().name, { residency });
      const loaded = memory().numTensors;
      for (const microBatch of [2048, 200]) {
        const { gradient, losses } = await coefficientGradient(
          { model, vectors: other.vectors, table, blockwise, microBatch },
          jobs(3),
          "cross-entropy",
        );
        expect(relativeError(losses, expected.losses)).toBeLessThan(1e-5);
        expect(relativeError(gradient.values, expected.gradient.values)).toBeLessThan(1e-5);
        expect(memory().numTensors).toBe(loaded);
      }
      other.dispose();
      expect(memory().numTensors).toBe(numTensors);
    },
  );

  const stepsHeld = slow ? 10 : 50;
  test(`${stepsHeld} steps leave no tensor behind`, async () => {
    const { model, vectors } = where();
    const table = applyGate(goldenTable(vectors.layers.length, 5), "tanh");
    const g = where().golden.batches[0]!;
    const two = {
      ...g,
      labels: g.labels.slice(0, 2),
      ids: g.ids.slice(0, 2),
      types: g.types.slice(0, 2),
      lengths: g.lengths.slice(0, 2),
    };
    const small = [{ head: where().heads[0]!, batch: toBatch(two), weight: 1 }];
    await coefficientGradient({ model, vectors, table }, small, "cross-entropy");
    const { numTensors, numBytes } = memory();
    for (let step = 0; step < stepsHeld; step++) {
      await coefficientGradient({ model, vectors, table }, small, step % 2 ? "cross-entropy" : "entropy");
      expect(memory().numTensors).toBe(numTensors);
    }
    expect(memory().numBytes).toBe(numBytes);
  });
}
