/** SuperMerge's table 5: what it costs, by the paper's counting and by ours. */
import { size } from "../report/memory.js";
import { claim } from "./claims.js";
import type { Cost, TokenCount, Experiment, Lab, Produced } from "./types.js";

/** A line of the table. */
interface CostLine {
  readonly name: string;
  readonly trainable: string;
  readonly memory: number;
  readonly counted: TokenCount | undefined;
  /** Operations of an epoch of those examples. */
  operations(counted: TokenCount): number;
}

function costLines({
  parameters,
  coefficients,
  experts,
  equation6,
  planned,
  validation,
  train,
}: Cost): CostLine[] {
  // A rule of ours, for the paper gives none: forward and backward take 6 operations a parameter and
  // token; a merge, 2 a parameter and expert, and as many again for its gradient.
  const merge = 2 * experts * parameters;
  const trained = (name: string, memory: number): CostLine => ({
    name,
    trainable: String(coefficients),
    memory,
    counted: validation,
    operations: ({ tokens }) => 6 * parameters * tokens + 2 * merge,
  });
  return [
    {
      name: "full fine-tuning",
      trainable: parameters.toLocaleString("en"),
      memory: equation6.fineTuning,
      counted: train,
      operations: ({ tokens }) => 6 * parameters * tokens,
    },
    {
      name: "methods without gradients",
      trainable: "1",
      memory: equation6.flat,
      counted: validation,
      operations: ({ tokens }) => 2 * parameters * tokens + merge,
    },
    trained("SuperMerge", equation6.flat),
    trained("hierarchical SuperMerge", equation6.pairwise),
    trained("SuperMerge, as planned here", planned),
  ];
}

const flatOverPairwise = "equation 6, all at once, over two at a time";

async function costTable(lab: Lab): Promise<Produced> {
  const cost = await lab.cost();
  const { parameters, coefficients, experts, equation6 } = cost;
  const head = [
    "method",
    "parameters",
    "trainable",
    "peak memory",
    "training examples",
    "operations an epoch",
  ];
  const body = costLines(cost).map(({ name, trainable, memory, counted, operations }) => {
    const epoch = counted && [String(counted.examples), operations(counted).toExponential(1)];
    return [name, parameters.toLocaleString("en"), trainable, size(memory), ...(epoch ?? ["–", "–"])];
  });
  return {
    rows: [],
    figures: [],
    numbers: {
      coefficients,
      parameters,
      [flatOverPairwise]: equation6.flat / equation6.pairwise,
    },
    tables: [
      {
        name: "cost",
        caption:
          `${experts} experts; memory by the paper's equation 6, which counts no activations, and ` +
          "as planned here, with them; an epoch of the examples trained on",
        table: { head, body },
      },
    ],
  };
}

export const table5: Experiment = {
  id: "supermerge/table-5",
  what: "what it costs: trainable parameters, memory (equation 6 and as planned here), operations an epoch",
  minutes: [1, 1],
  models: 0,
  run: costTable,
  claims: [
    claim(
      "SuperMerge trains fewer than a thousandth of the model's parameters",
      ({ number }) => number("coefficients") < number("parameters") / 1e3,
    ),
    claim(
      "Two experts at a time take less memory than all at once, by equation 6",
      ({ number }, { tasks }) => {
        // Two at a time are all of two.
        if (tasks.length <= 2) return undefined;
        return number(flatOverPairwise) > 1;
      },
    ),
  ],
};
