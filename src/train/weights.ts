import {
  add,
  div,
  engine,
  keep,
  minimum,
  mul,
  square,
  sqrt,
  sub,
  sum,
  tidy,
  type Tensor,
  type Variable,
} from "@tensorflow/tfjs-core";
import { f32, lookUp } from "../at.js";
import { forward } from "../models/index.js";
import { isMatrix, isVector, type Head } from "../models/layers.js";
import type { HeadNames, Model, Weights } from "../models/types.js";
import { modelPasses, type StepJob } from "./passes.js";
import { jobLosses } from "./losses.js";
import { addGradients } from "./step.js";

/** What is trained of a model, and what stands beside it. All of it lives on the device. */
export interface Trainee {
  readonly model: Model;
  /** What its family says of heads. */
  readonly head?: HeadNames | undefined;
  /** What nobody changes, by canonical name. */
  readonly fixed: ReadonlyMap<string, Tensor>;
  /** What is trained, heads among them, by name. */
  readonly trained: ReadonlyMap<string, Variable>;
}

/** Its weights as a forward asks for them. */
export const weightsOf = ({ model, fixed, trained }: Trainee): Weights => {
  const found = (name: string): Tensor => {
    const tensor = trained.get(name) ?? fixed.get(name);
    if (!tensor) throw new Error(`a block asks for "${name}", which is not there`);
    return tensor;
  };
  return Object.assign(found, {
    frozen: (name: string) => !trained.has(name),
    adapterOf: (module: string) => model.adapters?.get(module),
  });
};

/**
 * Running averages of gradients and of their squares, by name, and how many steps each has taken:
 * another task's head takes none.
 */
export interface DeviceMoments {
  readonly first: Map<string, Variable>;
  readonly second: Map<string, Variable>;
  readonly taken: Map<string, number>;
}

export interface WeightStep {
  readonly lr: number;
  /** Of matrices; norms and biases are not pulled to nothing, as is customary. */
  readonly weightDecay: number;
  /** The gradient is cut to this norm. */
  readonly clip: number;
  readonly microBatch: number;
}

/**
 * The jobs' loss and its gradient for everything that is trained, a pass at a time. The gradients are
 * the caller's.
 */
async function gradientOf(
  trainee: Trainee,
  jobs: readonly StepJob[],
  microBatch: number,
): Promise<{ loss: number; gradients: (Tensor | undefined)[] }> {
  const { model, trained } = trainee;
  const weights = weightsOf(trainee);
  const variables = [...trained.values()];
  let total: (Tensor | undefined)[] = [];
  let loss = 0;
  for (const pass of modelPasses(jobs, microBatch)) {
    const rows = pass.flatMap(({ batch }) => batch.rows);
    const { value, grads } = tidy(() =>
      engine().gradients(() => {
        const losses = jobLosses(forward(model, weights, rows), pass, "cross-entropy");
        return sum(losses.reduce((a, b) => add(a, b)));
      }, variables),
    );
    loss += f32(await value.data<"float32">(), 0);
    value.dispose();
    total = addGradients(total, grads);
  }
  return { loss, gradients: total };
}

const betas = { first: 0.9, second: 0.999, epsilon: 1e-8 };

/** What gradients are multiplied by, [], so that their norm together is no more than `clip`. The caller's. */
const clipScale = (gradients: readonly (Tensor | undefined)[], clip: number): Tensor =>
  tidy(() => {
    const squares = gradients.filter((g) => g !== undefined).map((g) => sum(square(g)));
    const norm = sqrt(squares.reduce((a, b) => add(a, b)));
    return keep(minimum(div(clip, add(norm, 1e-6)), 1));
  });

/**
 * One step of AdamW (Loshchilov & Hutter 2019) on everything that is trained, as PyTorch takes it, the
 * gradient cut to a norm first. On the device: beside the weights, two averages and one gradient of
 * what is trained, and a pass's activations. What the jobs do not reach is left as it is, as PyTorch
 * leaves it.
 * @returns the loss before it
 */
export async function weightStep(
  trainee: Trainee,
  moments: DeviceMoments,
  jobs: readonly StepJob[],
  { lr, weightDecay, clip, microBatch }: WeightStep,
): Promise<number> {
  const { loss, gradients } = await gradientOf(trainee, jobs, microBatch);
  if (!Number.isFinite(loss)) throw new RangeError(`the loss became ${loss}; try a lower --lr`);
  const scale = clipScale(gradients, clip);
  for (const [i, [name, variable]] of [...trainee.trained].entries()) {
    const own = gradients[i];
    if (!own) continue;
    const [first, second] = [lookUp(moments.first, name), lookUp(moments.second, name)];
    const step = (moments.taken.get(name) ?? 0) + 1;
    moments.taken.set(name, step);
    const [bias1, bias2] = [1 - betas.first ** step, 1 - betas.second ** step];
    tidy(() => {
      const gradient = mul(own, scale);
      first.assign(add(mul(first, betas.first), mul(gradient, 1 - betas.first)));
      second.assign(add(mul(second, betas.second), mul(square(gradient), 1 - betas.second)));
      const decay = variable.rank >= 2 ? weightDecay : 0;
      const kept = mul(variable, 1 - lr * decay);
      variable.assign(
        sub(kept, mul(div(first, add(sqrt(mul(second, 1 / bias2)), betas.epsilon)), lr / bias1)),
      );
    });
    own.dispose();
  }
  scale.dispose();
  return loss;
}

/** A head whose tensors are among what is trained. @param form what its family says of heads */
export function trainedHead(
  trained: ReadonlyMap<string, Variable>,
  prefix: string,
  form?: HeadNames,
): Head | undefined {
  const found = <T extends Tensor>(name: string, isRight: (t: Tensor) => t is T): T | undefined => {
    const tensor: Tensor | undefined = trained.get(`${prefix}${name}`);
    if (tensor && !isRight(tensor)) throw new Error(`${prefix}${name} has ${tensor.rank} axes`);
    return tensor;
  };
  const weight = found("weight", isMatrix);
  if (!weight) return undefined;
  const [dense, denseBias] = [found("dense.weight", isMatrix), found("dense.bias", isVector)];
  return {
    weight,
    bias: found("bias", isVector),
    frozen: false,
    ...(dense && denseBias && { dense: { weight: dense, bias: denseBias, activation: form?.activation } }),
  };
}
