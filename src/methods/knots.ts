import { flipped, leading, product } from "../tensor/svd.js";
import { density, lambdaParameter, meanGrid } from "./consensus.js";
import { thresholdPasses, type Thresholds } from "./global.js";
import { isLayer, mergeLayers, wholeInputs } from "./layers.js";
import { addDisjointMean, electSigns, majority, thresholdRank, trimModel } from "./ties.js";
import { method, type Part, type SurveyPass, type TensorReader } from "./types.js";

/**
 * KnOTS (Stoica et al. 2025): a layer's task vectors side by side are U [X_1 … X_k]; TIES merges the X_i, which have
 * directions in common, and U brings what comes out back.
 */
interface Aligned {
  /** [out, directions] */
  readonly left: Float64Array;
  readonly outputs: number;
  /** The X_i as a tensor of [directions, in]. */
  readonly reader: TensorReader;
}

/** Task vectors [out, in] in the directions that all of them together have. */
function alignDeltas(deltas: readonly Float64Array[], tensor: TensorReader): Aligned {
  const { rows, width, transposed = false } = tensor;
  const [outputs, inputs] = transposed ? [width, rows] : [rows, width];
  const turned = transposed ? deltas.map((delta) => flipped(delta, rows, width)) : deltas;
  const beside = new Float64Array(outputs * inputs * turned.length);
  for (const [i, delta] of turned.entries())
    for (let r = 0; r < outputs; r++)
      beside.set(delta.subarray(r * inputs, (r + 1) * inputs), (r * turned.length + i) * inputs);
  const { values, left } = leading(beside, outputs, inputs * turned.length, outputs);
  const count = values.length;
  const back = flipped(left, outputs, count);
  const part = (): Part => ({
    start: 0,
    base: new Float32Array(count * inputs),
    inputs: turned.map((delta) =>
      Float32Array.from(product(back, delta, { rows: count, inner: outputs, width: inputs })),
    ),
  });
  const { name, labels } = tensor;
  return { left, outputs, reader: { name, labels, rows: count, width: inputs, parts: () => [part()] } };
}

const aligned = (tensor: TensorReader): Aligned => alignDeltas(wholeInputs(tensor), tensor);

interface Values {
  readonly density: readonly number[];
}
interface Found extends Thresholds {
  readonly majority: number;
}

/** Thresholds over all layers, and the sign that most places of what they leave have. */
const thresholds = thresholdPasses(({ density }: Values) => density, thresholdRank).map(
  (pass): SurveyPass<Values> => ({
    ...pass,
    visit(state, tensor, values, before) {
      if (isLayer(tensor)) pass.visit(state, aligned(tensor).reader, values, before);
    },
  }),
);
const signs: SurveyPass<Values, { signs: number }, Found, Thresholds> = {
  start: (inputs) => majority.start(inputs),
  visit(state, tensor, values, before) {
    if (!isLayer(tensor)) return;
    const { reader } = aligned(tensor);
    majority.visit(state, { ...reader, parts: () => [trimmed(reader, values, before)] }, values, undefined);
  },
  join: (states, values, before) => ({ ...before, majority: majority.join(states, values, undefined) }),
};

/** What reaches the thresholds. */
function trimmed(reader: TensorReader, values: Values, found: Thresholds): Part {
  const [part] = [...reader.parts()] as [Part];
  trimModel.treat(reader, values, found)()(part);
  return part;
}

/** TIES of the X_i, and U times that. */
function mergeAligned(deltas: readonly Float64Array[], tensor: TensorReader, values: Values, found: Found) {
  const { left, outputs, reader } = alignDeltas(deltas, tensor);
  const part = trimmed(reader, values, found);
  electSigns.treat(reader, values, found.majority)()(part);
  const merged = new Float32Array(part.base.length);
  addDisjointMean(1)(part, merged);
  const size = { rows: outputs, inner: reader.rows, width: reader.width };
  const out = product(left, Float64Array.from(merged), size);
  return tensor.transposed ? flipped(out, outputs, reader.width) : out;
}

export const knotsMethod = method({
  name: "knots",
  about: "TIES in the directions that a layer's task vectors have together (Stoica et al. 2025)",
  works: "deltas",
  scaled: true,
  grid: { lambda: meanGrid },
  parameters: {
    lambda: lambdaParameter(1),
    density: density(0.2),
  },
  survey: [...thresholds, signs],
  merge: (tensor, values, found: Found) =>
    mergeLayers(tensor, values, (deltas) => mergeAligned(deltas, tensor, values, found)),
});
