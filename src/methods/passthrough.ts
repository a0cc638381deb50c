import { method, number } from "./types.js";

export const passthrough = method({
  name: "passthrough",
  about:
    "one model as it is, times a scale; in a mergekit file, layers of several models one after the other",
  works: "values",
  inputs: [1, 1],
  baseless: true,
  parameters: { scale: number(1, "what every entry is multiplied by") },
  merge:
    (_, { scale }) =>
    ({ inputs: [only] }, out) => {
      if (scale === 1) out.set(only!);
      else for (let i = 0; i < out.length; i++) out[i] = only![i]! * scale;
    },
});
