import { readFileSync } from "node:fs";
import { join } from "node:path";
import { memory } from "@tensorflow/tfjs-core";
import { expect, test } from "vitest";
import { openFamily, openMember, type Member } from "../../src/checkpoint/family.js";
import { batchLogits } from "../../src/evaluate/evaluate.js";
import { withTeacher } from "../../src/evaluate/teacher.js";
import { buildModel, disposeHead, headForm, headKind, loadHead } from "../../src/inputs/prepare.js";
import { columnOf } from "../../src/merge/source.js";
import { makeTable, type Table } from "../../src/merge/table.js";
import { loadTaskVectors } from "../../src/merge/vectors.js";
import { familyOf } from "../../src/models/index.js";
import type { Head } from "../../src/models/layers.js";
import { packageFolder } from "../../src/package.js";
import { fisherOf } from "../../src/statistics/fisher.js";
import { loadWeights } from "../../src/statistics/weights.js";
import { toBatch, type EncodedExample } from "../../src/tasks/batches.js";
import { textRows } from "../../src/tasks/head-rows.js";
import { parseExample } from "../../src/tasks/parse.js";
import { makeTask, type Task } from "../../src/tasks/registry.js";
import { loadTokenizer } from "../../src/tasks/tokenize.js";
import type { LossName } from "../../src/train/passes.js";
import { coefficientGradient } from "../../src/train/step.js";
import { zip } from "../../src/methods/inputs.js";
import { relativeError } from "../helpers.js";

const folder = join(packageFolder, "test", "golden", "kinds");

interface GoldenRow {
  ids: number[];
  /** A number, marks, tags by token (−100 for none), or a span. */
  target: number | number[];
  merged: number[][];
  expert: number[][];
}
interface GoldenKinds {
  tasks: string[];
  coefficients: number[];
  examples: Record<string, unknown[][]>;
  of: Record<string, { rows: GoldenRow[]; loss: number }>;
  gradient: number[];
}

const tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];
const tasks: Record<string, Task> = {
  stars: makeTask("stars", { kind: "regression" }),
  topics: makeTask("topics", { kind: "multi-label", labels: ["art", "food", "money", "animals"] }),
  entities: makeTask("entities", { kind: "tokens", labels: tags }),
  places: makeTask("places", { kind: "span" }),
};

/** What a data file would have for an example. */
const fieldsOf: Record<string, (example: never[]) => Record<string, unknown>> = {
  stars: ([text, label]) => ({ text, label }),
  topics: ([text, labels]) => ({ text, labels }),
  entities: ([words, ner]) => ({ tokens: words, ner_tags: ner }),
  places: ([question, context, text]) => ({ question, context, answers: [{ text }] }),
};

const read = (name: string) =>
  JSON.parse(readFileSync(join(folder, name, "golden.json"), "utf8")) as GoldenKinds;

interface KindJob {
  readonly id: string;
  readonly task: Task;
  readonly examples: readonly EncodedExample[];
  readonly expert: Member;
  readonly head: Head | undefined;
}

/** A family with an expert of every kind, and its examples as rows. */
async function openKinds(name: string) {
  const golden = read(name);
  const config = JSON.parse(readFileSync(join(folder, name, "base", "config.json"), "utf8")) as object;
  const modelFamily = familyOf(config as Record<string, unknown>, name);
  const family = await openFamily(
    await openMember("base", join(folder, name, "base"), modelFamily.canonical),
    golden.tasks.map((task) => ({ task, folder: join(folder, name, task) })),
    modelFamily.canonical,
  );
  const head = await headForm(modelFamily, family, { sources: [], tasks: Object.values(tasks) });
  const model = buildModel(family.base, "pool", head?.dense !== undefined);
  const vectors = await loadTaskVectors(
    { base: family.base, columns: family.experts.map(columnOf) },
    [...model.parameters.keys()],
    { tables: model.tables },
  );
  const encoder = textRows(await loadTokenizer(join(folder, name, "base"), 90));
  const jobs: KindJob[] = [];
  for (const [expert, id] of zip(family.experts, golden.tasks)) {
    const task = tasks[id]!;
    const examples = golden.examples[id]!.flatMap((one) => [
      encoder.encode(parseExample({ fields: fieldsOf[id]!(one as never[]), where: id }, task)!, task)[0]!,
    ]);
    jobs.push({ id, task, examples, expert, head: await loadHead(expert, head, headKind(task)) });
  }
  const close = async () => {
    vectors.dispose();
    for (const { head: one } of jobs) disposeHead(one);
    await family.close();
  };
  return { golden, model, vectors, jobs, close };
}
type Kinds = Awaited<ReturnType<typeof openKinds>>;

/** A coefficient an expert, the same for every layer. */
const tableOf = ({ vectors }: Kinds, coefficients: readonly number[]): Table =>
  makeTable(vectors.layers.length, coefficients.length, (_, c) => coefficients[c]!);

/** The gradient of each expert's one coefficient. */
const summed = ({ values, columns }: Table): number[] =>
  Array.from({ length: columns }, (_, c) =>
    values.filter((__, i) => i % columns === c).reduce((a, b) => a + b),
  );

async function step(kinds: Kinds, coefficients: readonly number[], loss: LossName, more = {}) {
  const { model, vectors } = kinds;
  const jobs = kinds.jobs
    .filter(({ task }) => task.kind !== "regression" || !loss.startsWith("entropy"))
    .map(({ head, examples }) => ({ head, batch: toBatch(examples), weight: 1 }));
  const table = tableOf(kinds, coefficients);
  const { losses, gradient } = await coefficientGradient({ model, vectors, table, ...more }, jobs, loss);
  return { losses, gradient: summed(gradient) };
}

/** What an expert's probabilities are learned from. */
async function withTeachers(kinds: Kinds): Promise<Kinds> {
  const { model, vectors } = kinds;
  const prepared = kinds.jobs.map(({ id, task, head, examples }) => ({
    id,
    ...textRows({} as never).answering(task),
    metrics: task.metrics,
    synthetic: true,
    head,
    validation: examples,
    test: [],
  }));
  const taught = await withTeacher({ model, vectors }, prepared, "validation");
  return { ...kinds, jobs: kinds.jobs.map((job, i) => ({ ...job, examples: taught[i]!.validation })) };
}

export function kindTests(tolerance: number, slow: boolean): void {
  const names = slow ? ["bert"] : ["bert", "roberta", "llama"];

  test.each(names)(
    "%s: numbers, labels, tags and spans are scored as transformers scores them",
    async (name) => {
      const kinds = await openKinds(name);
      const { golden, model, vectors, jobs, close } = kinds;
      const answers = { merged: golden.coefficients, expert: [] };
      for (const [c, { id, examples, head }] of jobs.entries())
        for (const [which, coefficients] of Object.entries(answers)) {
          const own = golden.tasks.map((_, i) => Number(i === c));
          const table = tableOf(kinds, coefficients.length > 0 ? coefficients : own);
          for (const [example, row] of zip(examples, golden.of[id]!.rows)) {
            expect(example.rows[0]!.ids, id).toEqual(row.ids);
            const items = [{ head, batch: toBatch([example]) }];
            for await (const { values } of batchLogits({ model, vectors, table }, items))
              expect(relativeError(values, row[which as "merged"].flat()), `${id}, ${which}`).toBeLessThan(
                tolerance,
              );
          }
        }
      await close();
    },
  );

  test.each(names)(
    "%s: right answers are on the tokens that transformers' scripts put them on",
    async (name) => {
      const { golden, jobs, close } = await openKinds(name);
      const targetOf = (example: EncodedExample): unknown => {
        if (example.kind === "tag") return example.tags.map((tag) => (tag < 0 ? -100 : tag));
        if (example.kind === "span") return example.spans[0];
        return example.kind === "mark" ? example.marks : example.label;
      };
      for (const { id, examples } of jobs)
        expect(examples.map(targetOf)).toEqual(golden.of[id]!.rows.map(({ target }) => target));
      await close();
    },
  );

  test.each(names)(
    "%s: losses and their gradient are PyTorch's, in one pass or in many, whole or by blocks",
    async (name) => {
      const kinds = await openKinds(name);
      const { golden, close } = kinds;
      for (const more of slow ? [{}] : [{}, { microBatch: 1 }, { blockwise: true }]) {
        const { losses, gradient } = await step(kinds, golden.coefficients, "cross-entropy", more);
        expect(
          relativeError(
            losses,
            golden.tasks.map((id) => golden.of[id]!.loss),
          ),
        ).toBeLessThan(tolerance);
        expect(relativeError(gradient, golden.gradient)).toBeLessThan(10 * tolerance);
      }
      await close();
    },
  );

  test("entropy and distillation: gradients agree with finite differences; nothing is lost at the expert", async () => {
    const kinds = await withTeachers(await openKinds("bert"));
    const at = [0.3, 0.5, 0.2, 0.4];
    for (const loss of slow ? (["distillation"] as const) : (["entropy", "distillation"] as const)) {
      const { gradient } = await step(kinds, at, loss);
      const h = 0.02;
      for (const [c, slope] of gradient.entries()) {
        const total = async (by: number) => {
          const { losses } = await step(
            kinds,
            at.map((one, i) => (i === c ? one + by : one)),
            loss,
          );
          return losses.reduce((a, b) => a + b);
        };
        const found = ((await total(h)) - (await total(-h))) / (2 * h);
        expect(Math.abs(found - slope)).toBeLessThan(0.02 * Math.hypot(...gradient));
      }
    }
    for (const [c] of kinds.jobs.entries()) {
      const own = kinds.jobs.map((_, i) => Number(i === c));
      const { losses } = await step(kinds, own, "distillation");
      expect(Math.abs(losses[c]!)).toBeLessThan(1e-5);
    }
    await kinds.close();
  });

  test("Fisher information of every kind, and nothing is left on the device", async () => {
    const { model, jobs, close } = await openKinds("bert");
    const before = memory().numTensors;
    for (const { id, expert, head, examples } of jobs) {
      const weights = await loadWeights(model, expert);
      const validation = examples.slice(0, 1);
      const found = await fisherOf(model, weights, { head, validation }, () => {});
      const all = [...found.values()].flatMap((values) => [...values]);
      expect(
        all.every((value) => value >= 0 && Number.isFinite(value)),
        id,
      ).toBe(true);
      expect(
        all.some((value) => value > 0),
        id,
      ).toBe(true);
      weights.dispose();
    }
    expect(memory().numTensors).toBe(before);
    await close();
  });
}
