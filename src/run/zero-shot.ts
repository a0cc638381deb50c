import { dispose, mean, mul, reshape, rsqrt, sum, tidy, type Tensor2D } from "@tensorflow/tfjs-core";
import { member, type Member } from "../checkpoint/family.js";
import type { Checkpoint } from "../checkpoint/folder.js";
import { UserError } from "../errors.js";
import { clipText } from "../models/clip.js";
import { forward } from "../models/index.js";
import type { HeadNames } from "../models/types.js";
import { loadWeights } from "../statistics/weights.js";
import { fromFloat32 } from "../tensor/dtype.js";
import type { Task } from "../tasks/registry.js";
import { loadTokenizer } from "../tasks/tokenize.js";

/** What a class is called to a model that knows pictures by their captions, where a task does not say it better. */
const customary = ["a photo of a {}."];

/** Whether a base has the text tower that heads are made from. */
export const hasTextTower = ({ actual }: Member): boolean => actual.has("text_projection.weight") && actual.has("text_model.final_layer_norm.weight");

/**
 * A task's head out of CLIP's text tower (Radford et al. 2021): a class's row is the mean of its prompts' features, each of
 * length 1, brought to length 1 again and multiplied with exp(logit_scale). The engine must run.
 * @returns a checkpoint that holds the head alone, as an expert's would
 */
export async function zeroShotHead(base: Member, task: Task, { weight }: HeadNames, canonical: (name: string) => string): Promise<Member> {
  const { checkpoint } = base;
  if (!task.labels || task.labels.every((label) => /^\d+$/.test(label))) throw new UserError(`${task.id}: a head is made from the names of its classes, and it has numbers alone; name them ("labels" in the data folder's tasks.json), or give experts with a head ("${weight}")`);
  const text = clipText(checkpoint.config);
  const tokenizer = await loadTokenizer(checkpoint.folder, text.maxLength);
  const weights = await loadWeights(text, base);
  try {
    const at = new Map(weights.names.map((name, i) => [name, i]));
    const scale = base.actual.has("logit_scale") ? Math.exp((await base.weights("logit_scale")).values[0]!) : 100;
    const templates = task.prompts ?? customary;
    const rows = task.labels.flatMap((label) => templates.map((template) => tokenizer.encode([template.replaceAll("{}", label.replaceAll("_", " "))])));
    const head = tidy((): Tensor2D => {
      const features = forward(text, (name) => weights.tensors[at.get(name)!]!, rows);
      const means = mean(reshape(features, [task.labels!.length, templates.length, -1]), 1);
      return mul(means, mul(rsqrt(sum(mul(means, means), 1, true)), scale));
    });
    const values = (await head.data()) as Float32Array;
    const shape = [...head.shape];
    dispose(head);
    const stored = { dtype: "F32" as const, shape, bytes: fromFloat32(values, "F32") };
    const only = (name: string) => {
      if (name !== weight) throw new UserError(`there is no tensor "${name}" in a head made from text`);
      return stored;
    };
    const own: Checkpoint = {
      folder: checkpoint.folder, config: { label2id: undefined }, files: [], names: [weight],
      entry: (name) => (name === weight ? { dtype: "F32", shape, start: 0, end: stored.bytes.length } : undefined),
      ref: (name) => ({ path: `${checkpoint.folder}#${name}`, start: 0, dtype: "F32" }),
      read: async (name) => only(name),
      readRange: async (name, start, length) => new Uint8Array(only(name).bytes.slice(start, start + length)),
      close: async () => {},
    };
    return member(task.id, own, canonical);
  } finally {
    weights.dispose();
  }
}
