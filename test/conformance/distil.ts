import { grads, memory, tensor2d, tidy, type Tensor2D } from "@tensorflow/tfjs-core";
import { expect, test } from "vitest";
import {
  askExpert,
  lessonExamples,
  type LessonOptions,
  type SpokenTask,
} from "../../src/evaluate/lessons.js";
import { residencies } from "../../src/merge/residency.js";
import { generate } from "../../src/evaluate/generate.js";
import { applyGate, constantTables, makeTable } from "../../src/merge/table.js";
import { taughtBy, teacherScorer } from "../../src/models/distil.js";
import { spansOf } from "../../src/models/ops.js";
import { overPieces } from "../../src/models/pieces.js";
import type { Divergence, Teacher } from "../../src/models/lesson.js";
import { toBatch } from "../../src/tasks/batches.js";
import { coefficientGradient } from "../../src/train/step.js";
import { rowsBatch } from "../../scripts/rows-batch.js";
import { golden, relativeError } from "../helpers.js";
import { flat } from "./load.js";
import { openCase } from "./models.js";

interface GoldenOp {
  count: number;
  temperature: number;
  divergence: Divergence;
  x: number[][];
  w: number[][];
  dy: number[];
  teacher: number[][];
  ids: number[][];
  logP: number[][];
  rest: number[];
  value: number[];
  dx: number[][];
  dw: number[][];
}

interface GoldenMerge {
  model: string;
  count: number;
  temperature: number;
  divergence: Divergence;
  rows: number[][];
  targets: number[][];
  losses: number[];
  layers: string[];
  gradient: number[][];
}

const coefficient = (row: number, column: number) => 0.1 + 0.05 * ((row * 7 + column * 3) % 11);

/** Distillation token by token against PyTorch: scripts/golden/distil.py. */
export function distilTests(tolerance: number, slow: boolean): void {
  const data = golden<{ ops: GoldenOp[]; merges: GoldenMerge[] }>("distil");

  test.each(data.ops)(
    "$divergence, $count tokens, temperature $temperature: value and gradients, in one piece or three",
    async (g) => {
      const before = memory().numTensors;
      const teacher: Teacher = {
        ids: Int32Array.from(g.ids.flat()),
        logP: Float32Array.from(g.logP.flat()),
        rest: Float32Array.from(g.rest),
      };
      const rows = g.w.length;
      for (const cuts of [[rows], [5, 1, rows - 6]]) {
        let from = 0;
        const pieces = cuts.map((size) => tensor2d(g.w.slice(from, (from += size))));
        const scorer = teacherScorer(teacher, spansOf(cuts), g);
        const [x, dy] = [tensor2d(g.x), tensor2d(g.dy, [g.dy.length, 1])];
        const y = tidy(() => overPieces(x, pieces, true, scorer));
        expect(relativeError(await y.data(), g.value)).toBeLessThan(tolerance);
        const [dx, ...dw] = tidy(() =>
          grads((input, ...parts) => overPieces(input as Tensor2D, parts as Tensor2D[], false, scorer))(
            [x, ...pieces],
            dy,
          ),
        );
        expect(relativeError(await dx!.data(), flat(g.dx))).toBeLessThan(tolerance);
        const all: number[] = [];
        for (const one of dw) all.push(...(await one.data()));
        expect(relativeError(all, flat(g.dw))).toBeLessThan(tolerance);
        [x, dy, y, dx!, ...dw, ...pieces].forEach((t) => t.dispose());
      }
      expect(memory().numTensors).toBe(before);
    },
  );

  test.each(data.ops)("$count tokens at $temperature: what a teacher says", async (g) => {
    // Its scores as an output layer of ones: x is the scores themselves.
    const classes = g.teacher[0]!.length;
    const unit = Array.from({ length: classes }, (_, i) =>
      Array.from({ length: classes }, (_, j) => Number(i === j)),
    );
    const pieces = [tensor2d(unit.slice(0, 4)), tensor2d(unit.slice(4))];
    const x = tensor2d(g.teacher);
    const said = tidy(() => taughtBy(x, pieces, g));
    const [values, width] = [await said.data(), said.shape[1]];
    for (const [row, ids] of g.ids.entries()) {
      const own = Array.from(values.subarray(row * width, (row + 1) * width));
      expect(own.slice(0, g.count)).toEqual(ids);
      expect(relativeError(own.slice(g.count, -1), g.logP[row]!)).toBeLessThan(tolerance);
      expect(Math.abs(Math.exp(own.at(-1)!) - Math.exp(g.rest[row]!))).toBeLessThan(tolerance);
    }
    [x, said, ...pieces].forEach((t) => t.dispose());
  });

  const cases = data.merges.flatMap((g) => residencies.map((residency) => ({ ...g, residency })));
  test.each(slow ? cases.slice(0, 1) : cases)(
    "$model on $residency, $divergence: a merge that learns its experts loses as much, with the same ∂L/∂w",
    async (g) => {
      const { model, vectors, canonical, close } = await openCase(g.model, undefined, g.residency);
      const { numTensors } = memory();
      const rowByName = new Map(g.layers.map((layer, row) => [canonical(layer), row]));
      const order = vectors.layers.map(({ id }) => rowByName.get(id)!);
      const raw = makeTable(order.length, 2, (r, c) => coefficient(order[r]!, c));
      const options: LessonOptions = {
        distilOn: "given",
        divergence: g.divergence,
        temperature: g.temperature,
        teacherTokens: g.count,
      };
      const rows = g.rows.map((ids, i) => ({ ids, types: [], targets: g.targets[i]! }));
      const { examples } = rowsBatch("generate", rows, [0, 0, 0]);
      const jobs = [];
      for (const id of vectors.experts) {
        const task = {
          id,
          kind: "generate",
          generation: { most: 4, text: () => "" },
        } as unknown as SpokenTask;
        const taught = await askExpert(
          { model, vectors, blockwise: g.residency !== "device" },
          task,
          examples,
          options,
        );
        jobs.push({ head: undefined, weight: 1, batch: toBatch(lessonExamples(taught, options)) });
      }
      const table = applyGate(raw, "tanh");
      for (const blockwise of slow ? [false] : [false, true]) {
        const { losses, gradient } = await coefficientGradient(
          { model, vectors, table, blockwise },
          jobs,
          "distillation",
        );
        expect(relativeError(losses, g.losses)).toBeLessThan(tolerance);
        // Through the gate: ∂/∂raw = ∂/∂w (1 − w²).
        const expected = order.flatMap((row) => g.gradient[row]!);
        const found = Array.from(gradient.values, (value, i) => value * (1 - table.values[i]! ** 2));
        expect(relativeError(found, expected)).toBeLessThan(5 * tolerance);
      }
      expect(memory().numTensors).toBe(numTensors);
      await close();
    },
  );

  test("an expert whose places end has not come to an end: none is added to its words", async () => {
    const { model, vectors, close } = await openCase("gpt2");
    const ids = Array.from({ length: model.maxLength - 2 }, (_, i) => 5 + (i % 20));
    const { examples } = rowsBatch("generate", [{ ids, types: [], targets: [6] }], [0]);
    const options: LessonOptions = {
      distilOn: "own",
      divergence: "forward",
      temperature: 1,
      teacherTokens: 4,
    };
    const task = {
      id: "a",
      kind: "generate",
      generation: { most: 12, text: () => "" },
    } as unknown as SpokenTask;
    const table = constantTables.individual(vectors.layers.length, 2, 0);
    const [words] = await generate({ model, vectors, table }, [{ ids, types: [] }], 12);
    const [taught] = await askExpert({ model, vectors }, task, examples, options);
    // Three tokens are all that is left; this expert says no end among them.
    expect(words).toHaveLength(3);
    expect(taught!.row.targets).toEqual(words);
    await close();
  });
}
