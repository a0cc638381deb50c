import { f32 } from "../at.js";
import { byName, zip } from "./inputs.js";
import { drawsFor } from "./random.js";
import { method, parameter } from "./types.js";

export const parameterSelectionMethod = method({
  name: "parameter-selection",
  about:
    "each entry from one model, drawn at random (Ju et al. 2024, arXiv 2410.03743); drawn " +
    "again where that one did not change it",
  works: "deltas",
  parameters: {
    resample: parameter.number(
      0,
      "how often an entry that is unchanged in the model drawn is drawn again",
      0,
    ),
    seed: parameter.number(0, "draws the models"),
  },
  merge({ name, labels }, { resample, seed }) {
    const draws = Array.from({ length: resample + 1 }, (_, n) => drawsFor(seed, "select", name, n));
    return ({ start, base, inputs }, out) => {
      // By name, so that the order in which models are given does not matter.
      const deltas = zip(labels, inputs)
        .sort(byName)
        .map(([, delta]) => delta);
      for (let at = 0; at < out.length; at++) {
        let x = 0;
        for (const draw of draws) {
          const delta = deltas[Math.floor((draw(start + at) / 4294967296) * deltas.length)];
          if (!delta) throw new RangeError("a draw is beyond the models");
          x = f32(delta, at);
          if (x !== 0) break;
        }
        out[at] = f32(base, at) + x;
      }
    };
  },
});
