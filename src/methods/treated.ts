import { electSigns, trimModel } from "./ties.js";
import { choice, method, number, numbers } from "./types.js";

/**
 * One model with its task vector treated, for who trains coefficients on treated ones (AdaMerging++;
 * SuperMerge on TIES's or DARE's): trimmed and of the elected signs, but not yet summed. DARE's part is
 * `--dare-p`, as in front of any method.
 */
export const treated = method({
  name: "treated",
  about: "one model with its task vector treated",
  works: "deltas",
  parameters: {
    which: number(0, "which of the models", 0),
    by: choice("ties", ["ties", "dare"], "what was done to the task vectors"),
    density: numbers(0.2, "part of each task vector that is kept", 0, 1),
  },
  treatments: ({ by }) => (by === "ties" ? [trimModel, electSigns] : []),
  merge:
    (_, { which }) =>
    ({ base, inputs }, out) => {
      const delta = inputs[which]!;
      for (let i = 0; i < out.length; i++) out[i] = base[i]! + delta[i]!;
    },
});
