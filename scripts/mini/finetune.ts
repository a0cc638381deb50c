/** Training of every weight of the small models, for the script that makes the family. */
import {
  cast,
  oneHot,
  tensor,
  tensor1d,
  tidy,
  train,
  truncatedNormal,
  variable,
  zeros,
  type Scalar,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  type Variable,
} from "@tensorflow/tfjs-core";
import { forward } from "../../src/models/index.js";
import { logits, type Head } from "../../src/models/layers.js";
import { crossEntropy } from "../../src/models/losses.js";
import { affine, rows } from "../../src/models/ops.js";
import type { Model, TokenBatch, Weights } from "../../src/models/types.js";
import {
  bucketed,
  choicesOf,
  batchLabels,
  trainingBatches,
  type EncodedExample,
} from "../../src/tasks/batches.js";
import type { Dice } from "./generate.js";

export type Values = Map<string, { shape: number[]; values: Float32Array }>;

/**
 * BERT's initial values: normal with deviation 0.05 (wider than BERT's 0.02, for a narrow model), norms
 * 1, biases 0.
 */
export async function initialValues(model: Model, seed: number): Promise<Values> {
  const out: Values = new Map();
  let n = seed;
  for (const [name, shape] of model.parameters) {
    const size = shape.reduce((a, b) => a * b, 1);
    const isMatrix = shape.length === 2;
    const values = isMatrix
      ? ((await truncatedNormal([...shape], 0, 0.05, "float32", n++).data()) as Float32Array)
      : new Float32Array(size).fill(name.endsWith("LayerNorm.weight") ? 1 : 0);
    out.set(name, { shape: [...shape], values });
  }
  return out;
}

export interface Trainable {
  readonly variables: Map<string, Variable>;
  readonly weights: (name: string) => Tensor;
  read(): Promise<Values>;
  dispose(): void;
}

export function toVariables(values: Values): Trainable {
  const variables = new Map<string, Variable>();
  for (const [name, { shape, values: data }] of values) {
    const source = tensor(data, shape);
    variables.set(name, variable(source));
    source.dispose();
  }
  return {
    variables,
    weights: (name) => variables.get(name)!,
    async read() {
      const out: Values = new Map();
      for (const [name, v] of variables)
        out.set(name, { shape: v.shape, values: (await v.data()) as Float32Array });
      return out;
    },
    dispose: () => variables.forEach((v) => v.dispose()),
  };
}

export interface Schedule {
  steps: number;
  lr: number;
  batchSize: number;
  seed: number;
}

/** Adam with a linear warm-up over a tenth of the steps and a linear decay after it. */
async function optimise(
  schedule: Schedule,
  variables: Variable[],
  loss: (step: number) => Scalar,
  report: (step: number, loss: number) => void,
): Promise<void> {
  const optimizer = train.adam(schedule.lr);
  for (let step = 0; step < schedule.steps; step++) {
    const warm = schedule.steps / 10;
    (optimizer as unknown as { learningRate: number }).learningRate =
      schedule.lr * (step < warm ? (step + 1) / warm : (schedule.steps - step) / (schedule.steps - warm));
    const value = optimizer.minimize(() => loss(step), true, variables)!;
    if (step % 100 === 99) report(step + 1, (await value.data())[0]!);
    value.dispose();
  }
  optimizer.dispose();
}

const targets = (labels: readonly number[], classes: number): Tensor2D =>
  cast(oneHot(tensor1d([...labels], "int32"), classes), "float32") as Tensor2D;

/** Masked-word training of the base: a sixth of the words are hidden and must be told from the rest. */
export async function pretrain(
  model: Model,
  base: Trainable,
  texts: readonly EncodedExample[],
  maskId: number,
  d: Dice,
  schedule: Schedule,
  report: (step: number, loss: number) => void,
): Promise<void> {
  const batchOf = trainingBatches("mlm", texts, schedule.batchSize, schedule.seed);
  await optimise(
    schedule,
    [...base.variables.values()],
    (step) => {
      const tokens = model.prepare(batchOf(step).rows) as TokenBatch;
      const ids = tokens.ids.slice();
      const hidden: number[] = [];
      // Special tokens have the lowest ids, up to the mask's.
      ids.forEach((id, at) => {
        if (id > maskId && d.chance(1 / 6)) {
          hidden.push(at);
          ids[at] = d.chance(0.1) ? id : maskId;
        }
      });
      if (hidden.length === 0) hidden.push(1);
      let state = model.start({ ...tokens, ids });
      for (const block of model.blocks.slice(0, -1)) state = block.run(base.weights, state);
      const found = rows((state as { x: Tensor2D }).x, tensor1d(hidden, "int32"));
      const table = base.weights("embeddings.word_embeddings.weight") as Tensor2D;
      // The embedding is the output layer too.
      const scores = affine(found, [{ weight: table, bias: zeros([model.vocabulary]) }]);
      return crossEntropy(
        scores,
        targets(
          hidden.map((at) => tokens.ids[at]!),
          model.vocabulary,
        ),
      ) as Scalar;
    },
    report,
  );
}

/** Fine-tunes every weight and a fresh head on one task. */
export async function finetune(
  model: Model,
  base: Values,
  examples: readonly EncodedExample[],
  outputs: number,
  schedule: Schedule,
  report: (step: number, loss: number) => void,
): Promise<{ expert: Trainable; head: Head & { weight: Variable; bias: Variable } }> {
  const expert = toVariables(base);
  const head = {
    weight: variable(
      truncatedNormal([outputs, model.width], 0, 0.05, "float32", schedule.seed),
    ) as unknown as Variable & Tensor2D,
    bias: variable(tensor1d(new Float32Array(outputs))) as unknown as Variable & Tensor1D,
  };
  const batchOf = trainingBatches("finetune", examples, schedule.batchSize, schedule.seed);
  await optimise(
    schedule,
    [...expert.variables.values(), head.weight, head.bias],
    (step) => {
      const batch = batchOf(step);
      const features = forward(model, expert.weights, batch.rows);
      const scores = logits(features, { ...head, frozen: false }, choicesOf(batch));
      return crossEntropy(scores, targets(batchLabels(batch), scores.shape[1])) as Scalar;
    },
    report,
  );
  return { expert, head };
}

/** Share of the examples whose highest logit is the label's. */
export async function accuracyOf(
  model: Model,
  weights: Weights,
  head: Head,
  examples: readonly EncodedExample[],
): Promise<number> {
  let correct = 0;
  for (const batch of bucketed(examples, 32)) {
    const scores = tidy(() => logits(forward(model, weights, batch.rows), head, choicesOf(batch)));
    const labels = batchLabels(batch);
    (await scores.array()).forEach(
      (row, i) => (correct += row.indexOf(Math.max(...row)) === labels[i] ? 1 : 0),
    );
    scores.dispose();
  }
  return correct / examples.length;
}
