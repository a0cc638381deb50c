/** What the jobs of a pass lose, from what the model gives of their rows. */
import { mul, reshape, sum, tensor1d, tensor2d, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import { UserError } from "../errors.js";
import { contrastLoss, towardsLoss } from "../models/embedding.js";
import { divergence, entropy, guardedEntropy, labelCrossEntropy, squaredError } from "../models/losses.js";
import { rows } from "../models/ops.js";
import { batchLabels } from "../tasks/batches.js";
import {
  batchClasses,
  decisions,
  isNumber,
  lossWeight,
  outputsOfRows,
  scoresOf,
  softTargets,
} from "../tasks/decisions.js";
import type { LossName, StepJob } from "./passes.js";

/** The weighted mean loss of each job, [1] each, from the features of all their rows (see Model). */
export function jobLosses(features: Tensor2D, jobs: readonly StepJob[], loss: LossName): Tensor[] {
  if (jobs.length === 1) return jobs.map((job) => weightedLoss(features, job, loss));
  let start = 0;
  return jobs.map((job) => {
    const from = start;
    const count = outputsOfRows(job.batch.rows);
    start += count;
    const own = tensor1d(
      Int32Array.from({ length: count }, (_, i) => from + i),
      "int32",
    );
    return weightedLoss(rows(features, own), job, loss);
  });
}

const weightedLoss = (features: Tensor2D, job: StepJob, loss: LossName): Tensor =>
  reshape(mul(meanLoss(features, job, loss), job.weight), [1]);

/** The mean loss of a batch's decisions, [decisions, classes], by the loss's name. */
const meanLosses: Readonly<Record<LossName, (scores: Tensor2D, batch: StepJob["batch"]) => Tensor>> = {
  entropy,
  "entropy-fusion_bench": guardedEntropy,
  "cross-entropy": (scores, batch) => labelCrossEntropy(scores, batchClasses(batch)),
  distillation: (scores, batch) => divergence(scores, softMatrix(scores, batch)),
};

const softMatrix = ({ shape }: Tensor2D, batch: StepJob["batch"]): Tensor2D =>
  tensor2d(softTargets(batch, shape[1]), shape);

/** @throws UserError where a number is none that a cosine can be */
function checkCosines(labels: readonly number[]): void {
  const [beyond] = labels.filter((label) => Math.abs(label) > 1);
  if (beyond !== undefined)
    throw new UserError(
      `two texts are alike by ${beyond}, and a cosine lies between −1 and 1: divide the numbers in the data ` +
        "(those of STS by 5)",
    );
}

/** The mean squared error of numbers, [examples, 1], to the right ones or to the experts'. */
function numberLoss(scores: Tensor2D, batch: StepJob["batch"], loss: LossName): Tensor {
  if (batch.kind === "similar" && loss === "cross-entropy") checkCosines(batchLabels(batch));
  if (loss === "cross-entropy") return squaredError(scores, tensor2d(batchLabels(batch), scores.shape));
  if (loss === "distillation") return squaredError(scores, softMatrix(scores, batch));
  throw new Error("a number has no entropy");
}

/** What vectors [texts, width] lose: their contrast, or how far they are from the expert's. */
function vectorLoss(vectors: Tensor2D, batch: StepJob["batch"], loss: LossName): Tensor {
  if (loss === "cross-entropy") return contrastLoss(vectors, at(batch.examples, 0).rows.length);
  if (loss === "distillation") return towardsLoss(vectors, softMatrix(vectors, batch));
  throw new Error("vectors have no entropy");
}

function meanLoss(features: Tensor2D, { head, batch }: StepJob, loss: LossName): Tensor {
  // Texts to be said: the mean cross-entropy of their tokens.
  if (batch.kind === "generate") return mul(sum(features), -1 / lossWeight(batch));
  const scores = scoresOf(features, head, batch);
  if (isNumber(batch.kind)) return numberLoss(scores, batch, loss);
  if (batch.kind === "match") return vectorLoss(scores, batch, loss);
  return meanLosses[loss](decisions(scores, batch), batch);
}
