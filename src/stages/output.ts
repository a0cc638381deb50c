/**
 * A language model's output layer a piece of the vocabulary at a time: merged, used by every pass, and gone. Neither
 * the merged layer nor its scores, nor a gradient of its size, is ever all there.
 */
import { dispose, tidy, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import { at, lookUp } from "../at.js";
import { outputPieceBytes } from "../merge/residency.js";
import { mergeTensors } from "../merge/merged.js";
import type { Request } from "../merge/stream.js";
import type { Table } from "../merge/table.js";
import { rowsTogether, type TaskVectors } from "../merge/vectors.js";
import { asMatrix } from "../models/layers.js";
import type { Predictions } from "../models/lesson.js";
import { rowScores, scorerOf } from "../models/output-layer.js";
import type { PieceScorer } from "../models/pieces.js";
import type { Model, OutputBlock } from "../models/types.js";
import { toBoundary, toTensors, type Boundary, type Stage, type StageInput } from "./stages.js";

type RowRun = NonNullable<Request["run"]>;

/** The merge whose output layer it is. */
export interface OutputPlace {
  readonly model: Model;
  readonly vectors: TaskVectors;
  readonly table: Table;
}

/**
 * The output layer that a stage is, where it is run in pieces: by blocks, and from host memory or disk. (What lies on
 * the device is whole there.)
 */
export function streamedOutput(
  { model, vectors }: Pick<OutputPlace, "model" | "vectors">,
  { blocks, last }: Stage,
): OutputBlock<unknown> | undefined {
  const isAlone = last && blocks.length === 1 && model.blocks.length > 1;
  return isAlone && vectors.residency !== "device" ? model.output : undefined;
}

/** The rows of each piece. */
export function outputRuns(vectors: TaskVectors, name: string): RowRun[] {
  const tensor = lookUp(vectors.tensors, name);
  const most = Math.max(1, Math.min(rowsTogether(tensor), Math.floor(outputPieceBytes / (4 * tensor.width))));
  return Array.from(
    { length: Math.ceil(tensor.rows / most) },
    (_, i) => [i * most, Math.min(tensor.rows, (i + 1) * most)] as const,
  );
}

/** Calls `use` with one merged piece after the other. */
export async function eachPiece(
  { vectors, table }: OutputPlace,
  name: string,
  use: (piece: Tensor2D, i: number, run: RowRun) => void | Promise<void>,
): Promise<void> {
  for (const [i, run] of outputRuns(vectors, name).entries()) {
    const tensors = await mergeTensors(vectors, table, [{ name, run }]);
    try {
      await use(asMatrix(tensors[0], name), i, run);
    } finally {
      dispose(tensors);
    }
  }
}

/** What a pass predicts, and what has been seen of it. */
export interface ScoredPass {
  readonly predictions: Predictions;
  readonly scorer: PieceScorer;
  /** [predictions, width], in host memory between two uses. */
  readonly x: Boundary;
  seen: Tensor[];
}

/** Passes ready to be scored. */
export function scoredPasses(
  { vectors }: Pick<OutputPlace, "vectors">,
  output: OutputBlock<unknown>,
  inputs: readonly StageInput[],
): ScoredPass[] {
  const sizes = outputRuns(vectors, output.weight).map(([from, to]) => to - from);
  return inputs.map(({ batch, boundary }) => {
    const predictions = output.predictions(batch);
    return { predictions, scorer: scorerOf(predictions, sizes), x: boundary, seen: [] };
  });
}

/** Runs something with a pass's activations on the device. */
export function withActivations<T>({ x }: ScoredPass, run: (x: Tensor2D) => T): T {
  const tensors = toTensors(x);
  try {
    return run(asMatrix(at(tensors, 0), "activations"));
  } finally {
    dispose(tensors);
  }
}

/** Shows every pass all pieces. */
export async function seeAll(place: OutputPlace, name: string, passes: readonly ScoredPass[]): Promise<void> {
  await eachPiece(place, name, (piece, i) => {
    for (const pass of passes) {
      const before = pass.seen;
      pass.seen = withActivations(pass, (x) => tidy(() => pass.scorer.see(before, x, piece, i)));
      dispose(before);
    }
  });
}

/** The scores of every input's rows, [rows, 1] each, in host memory. */
export async function outputForward(
  place: OutputPlace,
  output: OutputBlock<unknown>,
  inputs: readonly StageInput[],
): Promise<Boundary[]> {
  const passes = scoredPasses(place, output, inputs);
  await seeAll(place, output.weight, passes);
  const found: Boundary[] = [];
  for (const { scorer, seen, predictions } of passes) {
    const scores = tidy(() => rowScores(scorer.finish(seen).value, predictions));
    dispose(seen);
    found.push(await toBoundary([scores]));
  }
  return found;
}
