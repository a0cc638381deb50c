import { scaleBy } from "./arrays.js";
import { sole } from "./inputs.js";
import { method, parameter } from "./types.js";

export const passthroughMethod = method({
  name: "passthrough",
  about:
    "one model as it is, times a scale; in a mergekit file, layers of several models one after the other",
  works: "values",
  inputs: [1, 1],
  baseless: true,
  parameters: { scale: parameter.number(1, "what every entry is multiplied by") },
  changesEqual: ({ scale }) => scale !== 1,
  merge:
    (_, { scale }) =>
    ({ inputs }, out) => {
      out.set(sole(inputs));
      scaleBy(out, scale);
    },
});
