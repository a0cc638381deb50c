import { dispose, mean, mul, reshape, rsqrt, sum, tidy, type Tensor2D } from "@tensorflow/tfjs-core";
import { at, f32, lookUp } from "../at.js";
import { member, type Member } from "../checkpoint/family.js";
import { hostTensor, inMemory } from "../checkpoint/overlay.js";
import { UserError } from "../errors.js";
import { clipText } from "../models/clip.js";
import { forward } from "../models/index.js";
import type { HeadNames } from "../models/types.js";
import { loadWeights } from "../statistics/weights.js";
import type { Task } from "../tasks/registry.js";
import { loadTokenizer } from "../tasks/tokenize.js";

/** What a class is called to a model that knows pictures by their captions, where a task does not say it better. */
const customary = ["a photo of a {}."];

/** Whether a base has the text tower that heads are made from. */
export const hasTextTower = ({ actual }: Member): boolean =>
  actual.has("text_projection.weight") && actual.has("text_model.final_layer_norm.weight");

/** exp(logit_scale); 100 where the base does not say, as CLIP's own end at. */
async function logitScale(base: Member): Promise<number> {
  if (!base.actual.has("logit_scale")) return 100;
  const { values } = await base.weights("logit_scale");
  return Math.exp(f32(values, 0));
}

/**
 * A task's head out of CLIP's text tower (Radford et al. 2021): a class's row is the mean of its
 * prompts' features, each of length 1, brought to length 1 again and multiplied with exp(logit_scale).
 * The engine must run.
 * @returns a checkpoint that holds the head alone, as an expert's would
 */
export async function zeroShotHead(
  base: Member,
  task: Task,
  { weight }: HeadNames,
  canonical: (name: string) => string,
): Promise<Member> {
  const { checkpoint } = base;
  const { labels } = task;
  // A digit may be a name, where captions say what it is of.
  if (!labels || (!task.prompts && labels.every((label) => /^\d+$/.test(label))))
    throw new UserError(
      `${task.id}: a head is made from the names of its classes, and it has numbers alone; ` +
        `name them ("labels" in the data folder's tasks.json), or give experts with a head ` +
        `("${weight}")`,
    );
  const text = clipText(checkpoint.config);
  const tokenizer = await loadTokenizer(checkpoint.folder, text.maxLength);
  const weights = await loadWeights(text, base);
  try {
    const tensors = new Map(weights.names.map((name, i) => [name, at(weights.tensors, i)]));
    const scale = await logitScale(base);
    const templates = task.prompts ?? customary;
    const rows = labels.flatMap((label) =>
      templates.map((template) => tokenizer.encode([template.replaceAll("{}", label.replaceAll("_", " "))])),
    );
    const head = tidy((): Tensor2D => {
      const features = forward(text, (name) => lookUp(tensors, name), rows);
      const means = mean(reshape(features, [labels.length, templates.length, -1]), 1);
      return mul(means, mul(rsqrt(sum(mul(means, means), 1, true)), scale));
    });
    const values = await head.data<"float32">();
    const shape = [...head.shape];
    dispose(head);
    return member(
      task.id,
      inMemory(checkpoint.folder, {}, new Map([[weight, hostTensor(values, shape)]])),
      canonical,
    );
  } finally {
    weights.dispose();
  }
}
