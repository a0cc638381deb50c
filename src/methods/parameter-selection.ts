import { drawsFor } from "./random.js";
import { method, number } from "./types.js";

export const parameterSelection = method({
  name: "parameter-selection",
  about:
    "each entry from one model, drawn at random (Ju et al. 2024, arXiv 2410.03743); drawn " +
    "again where that one did not change it",
  works: "deltas",
  parameters: {
    resample: number(0, "how often an entry that is unchanged in the model drawn is drawn again", 0),
    seed: number(0, "draws the models"),
  },
  merge({ name, labels }, { resample, seed }) {
    const k = labels.length;
    const draws = Array.from({ length: resample + 1 }, (_, n) => drawsFor(seed, "select", name, n));
    // By name, so that the order in which models are given does not matter.
    const order = labels.map((_, i) => i).sort((a, b) => (labels[a]! < labels[b]! ? -1 : 1));
    return ({ start, base, inputs }, out) => {
      for (let at = 0; at < out.length; at++) {
        let x = 0;
        for (let n = 0; n <= resample && x === 0; n++)
          x = inputs[order[Math.floor((draws[n]!(start + at) / 4294967296) * k)]!]![at]!;
        out[at] = base[at]! + x;
      }
    };
  },
});
