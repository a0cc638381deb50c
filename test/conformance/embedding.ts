import { join } from "node:path";
import { memory } from "@tensorflow/tfjs-core";
import { expect, test } from "vitest";
import { openFamily, openMember } from "../../src/checkpoint/family.js";
import { batchLogits, evaluateTasks, type PreparedTask } from "../../src/evaluate/evaluate.js";
import { withTeacher } from "../../src/evaluate/teacher.js";
import { buildModel } from "../../src/inputs/prepare.js";
import { columnOf } from "../../src/merge/source.js";
import { makeTable, type Table } from "../../src/merge/table.js";
import { loadTaskVectors } from "../../src/merge/vectors.js";
import type { EmbeddingForm, Pooling } from "../../src/models/embedding.js";
import { familyOf } from "../../src/models/index.js";
import { packageFolder } from "../../src/package.js";
import { toBatch, type EncodedExample } from "../../src/tasks/batches.js";
import { textRows } from "../../src/tasks/head-rows.js";
import { parseExample } from "../../src/tasks/parse.js";
import { makeTask } from "../../src/tasks/registry.js";
import { loadTokenizer } from "../../src/tasks/tokenize.js";
import type { LossName } from "../../src/train/passes.js";
import { coefficientGradient } from "../../src/train/step.js";
import { golden, relativeError } from "../helpers.js";

interface GoldenLoss {
  loss: number;
  gradient: number[];
}
interface GoldenEmbedding {
  sentences: string[];
  coefficients: number[];
  poolings: Record<Pooling, number[][]>;
  dense: { weight: number[]; bias: number[]; out: number; vectors: number[][] };
  pairs: GoldenLoss & { rows: [string, string, number][]; measured: Record<string, number> };
  triplets: GoldenLoss & { rows: [string, string, string][]; measured: Record<string, number> };
  taught: GoldenLoss;
}

const mini = join(packageFolder, "checkpoints", "mini");
const alike = makeTask("alike", { kind: "similarity" });
const partners = makeTask("partners", { kind: "retrieval" });

/** The family that ships, read as embedding models. */
async function openEmbedding(form: EmbeddingForm) {
  const data = golden<GoldenEmbedding>("embedding");
  const { canonical } = familyOf({ model_type: "bert" }, "mini");
  const family = await openFamily(
    await openMember("base", join(mini, "base"), canonical),
    ["rte", "cb"].map((task) => ({ task, folder: join(mini, "experts", task) })),
    canonical,
  );
  const model = buildModel(family.base, "pool", true);
  const vectors = await loadTaskVectors(
    { base: family.base, columns: family.experts.map(columnOf) },
    [...model.parameters.keys()],
    { tables: model.tables },
  );
  const encoder = textRows(await loadTokenizer(join(mini, "base"), 48), () => form);
  const encode = (fields: Record<string, unknown>, task: typeof alike): EncodedExample =>
    encoder.encode(parseExample({ fields, where: "a row" }, task)!, task)[0]!;
  const pairs = data.pairs.rows.map(([a, b, score]) => encode({ sentence1: a, sentence2: b, score }, alike));
  const triplets = data.triplets.rows.map(([anchor, positive, negative]) =>
    encode({ anchor, positive, negative }, partners),
  );
  const close = async () => {
    vectors.dispose();
    await family.close();
  };
  return { data, model, vectors, encode, pairs, triplets, close };
}
type Embedding = Awaited<ReturnType<typeof openEmbedding>>;

const tableOf = ({ vectors }: Embedding, coefficients: readonly number[]): Table =>
  makeTable(vectors.layers.length, coefficients.length, (_, c) => coefficients[c]!);

async function vectorsOf(place: Embedding, sentences: readonly string[]): Promise<number[][]> {
  const { model, vectors, encode } = place;
  const table = tableOf(place, [0, 0]);
  const examples = sentences.map((text) => encode({ anchor: text, positive: text }, partners));
  const found: number[][] = [];
  for await (const { values, width } of batchLogits({ model, vectors, table }, [
    { head: undefined, batch: toBatch(examples) },
  ]))
    for (let i = 0; i < sentences.length; i++)
      found.push([...values.subarray(2 * i * width, (2 * i + 1) * width)]);
  return found;
}

async function lossOf(place: Embedding, examples: readonly EncodedExample[], loss: LossName, more = {}) {
  const { model, vectors, data } = place;
  const table = tableOf(place, data.coefficients);
  const jobs = [{ head: undefined, batch: toBatch(examples), weight: 1 }];
  const { losses, gradient } = await coefficientGradient({ model, vectors, table, ...more }, jobs, loss);
  const sums = [0, 1].map((c) =>
    gradient.values.filter((_, i) => i % gradient.columns === c).reduce((a, b) => a + b),
  );
  return { loss: losses[0]!, gradient: sums };
}

const prepared = (kind: "similar" | "match", examples: readonly EncodedExample[]): PreparedTask => ({
  id: kind === "similar" ? alike.id : partners.id,
  kind,
  metrics: kind === "similar" ? alike.metrics : partners.metrics,
  synthetic: true,
  head: undefined,
  validation: examples,
  test: examples,
});

export function embeddingTests(tolerance: number, slow: boolean): void {
  const poolings = ["mean", "cls", "mean_sqrt_len", "weightedmean", "lasttoken"] as const;
  test.each(slow ? poolings.slice(0, 1) : poolings)(
    "vectors by %s are sentence-transformers'",
    async (pooling) => {
      const place = await openEmbedding({ pooling, dense: [] });
      const { sentences, poolings } = place.data;
      const found = await vectorsOf(place, sentences);
      expect(relativeError(found.flat(), poolings[pooling].flat())).toBeLessThan(tolerance);
      await place.close();
    },
  );

  // What follows on the same products is not tried on a slow engine.
  test.skipIf(slow)("so are those behind a dense layer", async () => {
    const { dense } = golden<GoldenEmbedding>("embedding");
    const layer = {
      weight: Float32Array.from(dense.weight),
      bias: Float32Array.from(dense.bias),
      out: dense.out,
      activation: "tanh" as const,
    };
    const place = await openEmbedding({ pooling: "mean", dense: [layer] });
    const found = await vectorsOf(place, place.data.sentences);
    expect(relativeError(found.flat(), dense.vectors.flat())).toBeLessThan(tolerance);
    await place.close();
  });

  test("losses of pairs and of texts with partners, and their ∂L/∂w, in one pass or many, or by blocks", async () => {
    const before = memory().numTensors;
    const place = await openEmbedding({ pooling: "mean", dense: [] });
    const { data, pairs, triplets } = place;
    for (const more of slow ? [{}] : [{}, { microBatch: 30 }, { blockwise: true }]) {
      for (const [wanted, examples] of [
        [data.pairs, pairs],
        [data.triplets, triplets],
      ] as const) {
        const { loss, gradient } = await lossOf(place, examples, "cross-entropy", more);
        expect(relativeError([loss], [wanted.loss])).toBeLessThan(tolerance);
        expect(relativeError(gradient, wanted.gradient)).toBeLessThan(10 * tolerance);
      }
    }
    await place.close();
    expect(memory().numTensors).toBe(before);
  });

  test.skipIf(slow)("a merge learns its expert's vectors, and loses nothing at the expert", async () => {
    const place = await openEmbedding({ pooling: "mean", dense: [] });
    const { model, vectors, data, triplets } = place;
    // Its tasks are columns of the table, by name: the first is asked.
    const asked = { ...prepared("match", triplets), id: vectors.experts[0]! };
    const [taught] = await withTeacher({ model, vectors }, [asked], "validation");
    const { loss, gradient } = await lossOf(place, taught!.validation, "distillation");
    expect(relativeError([loss], [data.taught.loss])).toBeLessThan(tolerance);
    expect(relativeError(gradient, data.taught.gradient)).toBeLessThan(10 * tolerance);
    const batch = toBatch(taught!.validation);
    const own = tableOf(place, [1, 0]);
    const job = { head: undefined, batch, weight: 1 };
    const { losses } = await coefficientGradient({ model, vectors, table: own }, [job], "distillation");
    expect(Math.abs(losses[0]!)).toBeLessThan(tolerance);
    await place.close();
  });

  test.skipIf(slow)("what is measured is what sentence-transformers' evaluators say", async () => {
    const place = await openEmbedding({ pooling: "mean", dense: [] });
    const { model, vectors, data, pairs, triplets } = place;
    const table = tableOf(place, data.coefficients);
    const tasks = [prepared("similar", pairs), prepared("match", triplets)];
    const [similarity, retrieval] = await evaluateTasks({ model, vectors, table }, tasks, "test");
    for (const [name, value] of Object.entries(data.pairs.measured))
      expect(similarity!.metrics[name as "pearson"], name).toBeCloseTo(value, 5);
    for (const [name, value] of Object.entries(data.triplets.measured))
      expect(retrieval!.metrics[name as "ndcg@10"], name).toBeCloseTo(value, 6);
    expect(similarity!.loss).toBeCloseTo(data.pairs.loss, 4);
    await place.close();
  });
}
