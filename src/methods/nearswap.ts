import { method, number } from "./types.js";

export const nearswap = method({
  name: "nearswap",
  about: "the base moved towards one model by at most t in each entry (alchemonaut 2024)",
  works: "deltas",
  inputs: [1, 1],
  parameters: { t: number(0.001, "how far an entry may move", 0) },
  merge:
    (_, { t }) =>
    ({ base, inputs: [delta] }, out) => {
      for (let i = 0; i < out.length; i++)
        out[i] = base[i]! + delta![i]! * Math.min(1, t / Math.max(Math.abs(delta![i]!), 1e-6));
    },
});
