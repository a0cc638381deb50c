import { at } from "../at.js";
import { addScaled } from "./arrays.js";
import { mergeTaskPart } from "./singular.js";
import { electSigns, trimModel } from "./ties.js";
import { method, parameter } from "./types.js";

/**
 * One model with its task vector treated, for who trains coefficients on treated ones (AdaMerging++;
 * SuperMerge on TIES's, DARE's or TSV-M's): trimmed and of the elected signs, or made orthogonal to the others', but
 * not yet summed. DARE's part is `--dare-p`, as in front of any method.
 */
export const treatedMethod = method({
  name: "treated",
  about: "one model with its task vector treated",
  works: "deltas",
  parameters: {
    which: parameter.number(0, "which of the models", 0),
    by: parameter.choice("ties", ["ties", "dare", "tsv-m"], "what was done to the task vectors"),
    density: parameter.numbers(0.2, "part of each task vector that is kept", 0, 1),
    scale: parameter.number(1, "what the treated task vector is multiplied by"),
  },
  treatments: ({ by }) => ({ ties: [trimModel, electSigns], dare: [], "tsv-m": [] })[by],
  merge: (tensor, { which, by, scale }) => {
    if (by === "tsv-m") return mergeTaskPart(tensor, which, scale);
    return ({ base, inputs }, out) => {
      out.set(base);
      addScaled(out, at(inputs, which), scale);
    };
  },
});
