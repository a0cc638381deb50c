import { join } from "node:path";
import { recipeOf } from "../inputs/locate.js";
import { openInputs } from "../inputs/open.js";
import { encoderFor } from "../inputs/encoder.js";

import type { Model } from "../models/types.js";
import { equation6 } from "../plan/memory.js";
import { rowTokens, type EncodedExample } from "../tasks/batches.js";
import { encodeMixed } from "../tasks/encoders.js";
import { findSplits, readExamples } from "../tasks/files.js";
import { pickTasks } from "../tasks/registry.js";
import { noteInputs, type LabContext } from "./lab-context.js";
import type { Cost, TokenCount } from "./types.js";

const countOf = (examples: readonly EncodedExample[]): TokenCount => ({
  examples: examples.length,
  tokens: examples.reduce((sum, { rows }) => sum + rowTokens(...rows), 0),
});

/** Tokens of the tasks' training files; undefined where there are none that are read as texts. */
async function trainTokens(
  { options, registry }: LabContext,
  base: string,
  model: Model,
): Promise<TokenCount | undefined> {
  const encoder = await encoderFor(base, model, options);
  if (encoder.input === "image") return undefined;
  let [examples, tokens] = [0, 0];
  for (const task of pickTasks(registry, options.tasks)) {
    const { train } = await findSplits(options.data, task);
    for (const path of train?.files ?? []) {
      const counted = countOf(encodeMixed(await readExamples(path, task), encoder, task));
      examples += counted.examples;
      tokens += counted.tokens;
    }
  }
  if (examples === 0) return undefined;
  return { examples, tokens };
}

/** What a merge of a lab's experts costs, from the models and the data. */
export async function costOf(context: LabContext): Promise<Cost> {
  const { options, runs, record, hooks } = context;
  const opened = await openInputs(
    { ...options, baselines: false },
    await recipeOf(options),
    join(runs, "cost"),
    hooks,
  );
  try {
    noteInputs(record, opened.hashes);
    const { model, vectors, plan, tasks, locations } = opened;
    const parameters = [...model.parameters.values()].reduce(
      (sum, shape) => sum + shape.reduce((a, b) => a * b, 1),
      0,
    );
    const [layers, experts] = [vectors.layers.length, vectors.experts.length];
    const coefficients = layers * experts;
    return {
      parameters,
      coefficients,
      layers,
      experts,
      planned: plan.chosen.device,
      equation6: {
        flat: equation6(parameters, experts, coefficients),
        pairwise: equation6(parameters, 2, layers * 2),
        fineTuning: equation6(parameters, 0, parameters),
      },
      validation: countOf(tasks.flatMap(({ validation }) => validation)),
      train: await trainTokens(context, locations.base, model),
    };
  } finally {
    await opened.dispose();
  }
}
