/** A language model's output layer backward, a piece of the vocabulary at a time: see stages/output.ts. */
import {
  add,
  concat,
  dispose,
  engine,
  keep,
  matMul,
  tidy,
  zerosLike,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { at, lookUp } from "../at.js";
import { innerProducts } from "../merge/merged.js";
import { rowScores } from "../models/output-layer.js";
import type { OutputBlock } from "../models/types.js";
import {
  eachPiece,
  scoredPasses,
  seeAll,
  withActivations,
  type OutputPlace,
  type ScoredPass,
} from "../stages/output.js";
import { toBoundary, type Boundary, type StageInput } from "../stages/stages.js";

/** A pass as it enters the output layer, and its losses, [1] each, from the scores of its rows. */
export interface LossPass extends StageInput {
  losses(scores: Tensor2D): Tensor[];
}

/** What comes back out of it. */
export interface OutputGradients {
  /** Inner products of the layer's gradient with its task vectors, a list a piece: they add up. */
  readonly products: { readonly name: string; readonly numbers: Float32Array }[];
  /** Every pass's losses, one after the other. */
  readonly losses: Float32Array;
  /** Of every pass, the gradient with respect to its activations. */
  readonly upstream: Boundary[];
}

/** A pass on its way back. */
interface Returning {
  readonly pass: ScoredPass;
  readonly losses: Tensor;
  /** The gradient with respect to each prediction's number, and what the scorer kept. */
  readonly dy: Tensor;
  readonly kept: readonly Tensor[];
  /** The gradient with respect to the activations, so far. */
  dx: Tensor2D | undefined;
}

/** Turns a pass round: its losses, and their gradient with respect to its predictions' numbers. */
function turned(pass: ScoredPass, { losses }: LossPass): Returning {
  const made = tidy(() => {
    const { value, kept } = pass.scorer.finish(pass.seen);
    const found: Tensor[] = [];
    const { grads } = engine().gradients(() => {
      const each = losses(rowScores(value, pass.predictions));
      found.push(keep(concat(each)));
      return each.reduce((a, b) => add(a, b));
    }, [value]);
    return { dy: grads[0] ?? zerosLike(value), kept, all: found };
  });
  dispose(pass.seen.filter((tensor) => !made.kept.includes(tensor)));
  return { pass, losses: at(made.all, 0), dy: made.dy, kept: made.kept, dx: undefined };
}

/** One piece backward over all passes: adds to each pass's dx; the piece's own gradient, where somebody asks for it. */
function pieceBackward(
  piece: Tensor2D,
  i: number,
  passes: readonly Returning[],
  isFrozen: boolean,
): Tensor2D | undefined {
  let gradient: Tensor2D | undefined;
  for (const one of passes) {
    const [before, dxBefore] = [gradient, one.dx];
    const made = withActivations(one.pass, (x) =>
      tidy(() => {
        const dz = one.pass.scorer.gradient(one.kept, x, piece, { i, dy: one.dy });
        const forX = matMul<Tensor2D>(dz, piece);
        const dx = dxBefore ? add<Tensor2D>(dxBefore, forX) : forX;
        if (isFrozen) return { dx, own: undefined };
        const own = matMul<Tensor2D>(dz, x, true, false);
        return { dx, own: before ? add<Tensor2D>(before, own) : own };
      }),
    );
    dispose([before, dxBefore].filter((tensor) => tensor !== undefined));
    one.dx = made.dx;
    gradient = made.own;
  }
  return gradient;
}

/**
 * The output layer forward and back. Device memory: a piece of the merged layer, its gradient, and the scores of one
 * pass's predictions for it; the layer is merged twice.
 */
export async function outputBackward(
  place: OutputPlace,
  output: OutputBlock<unknown>,
  inputs: readonly LossPass[],
): Promise<OutputGradients> {
  const { weight: name } = output;
  const scored = scoredPasses(place, output, inputs);
  await seeAll(place, name, scored);
  const passes = scored.map((pass, i) => turned(pass, at(inputs, i)));
  const isFrozen = lookUp(place.vectors.tensors, name).experts.length === 0;
  const products: OutputGradients["products"] = [];
  await eachPiece(place, name, async (piece, i, run) => {
    const gradient = pieceBackward(piece, i, passes, isFrozen);
    if (!gradient) return;
    const [found] = await innerProducts(place.vectors, [{ name, run }], [gradient]);
    gradient.dispose();
    if (!found) return;
    products.push({ name, numbers: await found.data<"float32">() });
    found.dispose();
  });
  const upstream: Boundary[] = [];
  const losses: number[] = [];
  for (const { dx, losses: each, dy, kept } of passes) {
    losses.push(...(await each.data()));
    upstream.push(await toBoundary(dx ? [dx] : []));
    dispose([each, dy, ...kept]);
  }
  return { products, losses: Float32Array.from(losses), upstream };
}
