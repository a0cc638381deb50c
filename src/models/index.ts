import type { Tensor2D } from "@tensorflow/tfjs-core";
import { UserError } from "../errors.js";
import { nearest } from "../nearest.js";
import { albert } from "./albert.js";
import { bart } from "./bart.js";
import { bert, electra, roberta } from "./bert.js";
import { clip } from "./clip.js";
import { deberta } from "./deberta.js";
import { dinov2 } from "./dinov2.js";
import { distilbert } from "./distilbert.js";
import { falcon } from "./falcon.js";
import { gpt2 } from "./gpt2.js";
import { gptNeox } from "./gpt-neox.js";
import { llama } from "./llama.js";
import { modernbert } from "./modernbert.js";
import { mpnet } from "./mpnet.js";
import { opt } from "./opt.js";
import { siglip } from "./siglip.js";
import { t5 } from "./t5.js";
import type { CheckpointType, Model, ModelFamily, TokenRow, Weights } from "./types.js";
import { vit } from "./vit.js";

/** Every model family: add one with a file of its own and a line here. */
export const families: readonly ModelFamily[] = [
  bert,
  roberta,
  electra,
  albert,
  distilbert,
  deberta,
  modernbert,
  mpnet,
  t5,
  bart,
  llama,
  gpt2,
  gptNeox,
  falcon,
  opt,
  vit,
  dinov2,
  clip,
  siglip,
];

/** Every `model_type` that can be trained, with its family. */
const modelTypes: ReadonlyMap<unknown, { readonly family: ModelFamily; readonly type: CheckpointType }> =
  new Map(
    families.flatMap((family) =>
      Object.entries(family.types).map(([modelType, type]) => [modelType, { family, type }]),
    ),
  );

/** What generates texts, such as "T5, Llama": for messages. */
export const languageModels: string = families
  .filter(({ outputLayers }) => outputLayers.includes("score"))
  .flatMap(({ types }) => Object.values(types).map(({ title }) => title))
  .join(", ");

/** The family of a `model_type`; undefined where it is none that can be trained. */
export const familyOfType = (modelType: unknown): ModelFamily | undefined =>
  modelTypes.get(modelType)?.family;

/** What is known of checkpoints of a `model_type`; undefined where it is none that can be trained. */
export const checkpointTypeOf = (modelType: unknown): CheckpointType | undefined =>
  modelTypes.get(modelType)?.type;

/** The family of a config. @throws UserError naming the families there are. */
export function familyOf(config: Readonly<Record<string, unknown>>, where: string): ModelFamily {
  const modelType = config["model_type"];
  const family = familyOfType(modelType);
  if (!family) {
    const known = [...modelTypes.keys()].map(String);
    throw new UserError(
      `${where}: model_type ${JSON.stringify(modelType)} is not one train-merge can ` +
        `train${nearest(String(modelType), known)}; it knows ${known.join(", ")}. \`train-merge merge\` ` +
        "merges any model without training; CONTRIBUTING.md says how to add a family (one file, one line)",
    );
  }
  return family;
}

/** Runs a model from rows of tokens to features [rows, width], in the rows' order. */
export function forward(model: Model, weights: Weights, rows: readonly TokenRow[]): Tensor2D {
  const batch = model.prepare(rows);
  return model.features(model.blocks.reduce((state, block) => block.run(weights, state), model.start(batch)));
}
