import { sole } from "./inputs.js";
import { method, parameter } from "./types.js";

export const nearswapMethod = method({
  name: "nearswap",
  about: "the base moved towards one model by at most t in each entry (alchemonaut 2024)",
  works: "deltas",
  inputs: [1, 1],
  parameters: { t: parameter.number(0.001, "how far an entry may move", 0) },
  merge:
    (_, { t }) =>
    ({ base, inputs }, out) => {
      const delta = sole(inputs);
      for (let i = 0; i < out.length; i++) {
        const x = delta[i]!;
        out[i] = base[i]! + x * Math.min(1, t / Math.max(Math.abs(x), 1e-6));
      }
    },
});
