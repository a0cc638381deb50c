import { at } from "../at.js";
import { weightedSum } from "./arrays.js";
import { density } from "./consensus.js";
import { eachTasksPart } from "./singular.js";
import { electSigns, trimModel } from "./ties.js";
import { method, parameter, type EachPart } from "./types.js";

/** Base + scale · τ_i, of every model. */
const eachModel =
  (scale: number): EachPart =>
  ({ base, inputs }, outs) => {
    for (const [i, out] of outs.entries()) weightedSum([at(inputs, i)], [scale], out, base);
  };

/**
 * Each model with its task vector treated, for who trains coefficients on treated ones (AdaMerging++;
 * SuperMerge on TIES's, DARE's or TSV-M's): trimmed and of the elected signs, or made orthogonal to the others', but
 * not yet summed. DARE's part is `--dare-p`, as in front of any method.
 */
export const treatedMethod = method({
  name: "treated",
  about: "each model with its task vector treated",
  works: "deltas",
  parameters: {
    which: parameter.number(0, "which of the models, where one result is asked for", 0),
    by: parameter.choice("ties", ["ties", "dare", "tsv-m"], "what was done to the task vectors"),
    density: density(0.2),
    scale: parameter.number(1, "what the treated task vector is multiplied by"),
  },
  treatments: ({ by }) => ({ ties: [trimModel, electSigns], dare: [], "tsv-m": [] })[by],
  mergeEach: (tensor, { by, scale }) => (by === "tsv-m" ? eachTasksPart(tensor, scale) : eachModel(scale)),
  merge(tensor, { which, by, scale }) {
    const each = by === "tsv-m" ? eachTasksPart(tensor, scale) : eachModel(scale);
    return (part, out) => {
      const outs = tensor.labels.map((_, i) => (i === which ? out : new Float32Array(out.length)));
      each(part, outs);
    };
  },
});
