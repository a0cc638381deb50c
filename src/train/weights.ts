import {
  add,
  dispose,
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
  type Tensor2D,
  type Variable,
} from "@tensorflow/tfjs-core";
import { forward } from "../models/index.js";
import type { Head } from "../models/head.js";
import type { Model, Weights } from "../models/types.js";
import { passesOf, type Job } from "./passes.js";
import { jobLosses } from "./step.js";

/** What is trained of a model, and what stands beside it. All of it lives on the device. */
export interface Trainee {
  readonly model: Model;
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
  jobs: readonly Job[],
  microBatch: number,
): Promise<{ loss: number; gradients: (Tensor | undefined)[] }> {
  const { model, trained } = trainee;
  const weights = weightsOf(trainee);
  const variables = [...trained.values()];
  let total: (Tensor | undefined)[] = variables.map(() => undefined);
  let loss = 0;
  for (const pass of passesOf(jobs, microBatch)) {
    const { value, grads } = tidy(() =>
      engine().gradients(() => {
        const features: Tensor2D = forward(
          model,
          weights,
          pass.flatMap(({ batch }) => batch.rows),
        );
        return sum(jobLosses(features, pass, "cross-entropy").reduce((a, b) => add(a, b)));
      }, variables),
    ) as { value: Tensor; grads: (Tensor | undefined)[] };
    loss += (await value.data())[0]!;
    value.dispose();
    total = total.map((before, i) => {
      const now = grads[i];
      if (!before || !now) return before ?? now;
      const both = add(before, now);
      dispose([before, now]);
      return both;
    });
  }
  return { loss, gradients: total };
}

const betas = { first: 0.9, second: 0.999, epsilon: 1e-8 };

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
  jobs: readonly Job[],
  { lr, weightDecay, clip, microBatch }: WeightStep,
): Promise<number> {
  const { loss, gradients } = await gradientOf(trainee, jobs, microBatch);
  if (!Number.isFinite(loss)) throw new RangeError(`the loss became ${loss}; try a lower --lr`);
  const scale = tidy(() =>
    keep(
      minimum(
        div(
          clip,
          add(sqrt(gradients.flatMap((g) => (g ? [sum(square(g))] : [])).reduce((a, b) => add(a, b))), 1e-6),
        ),
        1,
      ),
    ),
  );
  for (const [i, [name, variable]] of [...trainee.trained].entries()) {
    const own = gradients[i];
    if (!own) continue;
    const [first, second] = [moments.first.get(name)!, moments.second.get(name)!];
    const step = (moments.taken.get(name) ?? 0) + 1;
    moments.taken.set(name, step);
    const [bias1, bias2] = [1 - betas.first ** step, 1 - betas.second ** step];
    tidy(() => {
      const gradient = mul(own, scale);
      first.assign(add(mul(first, betas.first), mul(gradient, 1 - betas.first)));
      second.assign(add(mul(second, betas.second), mul(square(gradient), 1 - betas.second)));
      const kept = mul(variable, 1 - lr * (variable.rank >= 2 ? weightDecay : 0));
      variable.assign(
        sub(kept, mul(div(first, add(sqrt(mul(second, 1 / bias2)), betas.epsilon)), lr / bias1)),
      );
    });
    own.dispose();
  }
  scale.dispose();
  return loss;
}

/** A head whose tensors are among what is trained. */
export function trainedHead(trained: ReadonlyMap<string, Variable>, prefix: string): Head | undefined {
  const of = <T extends Tensor>(name: string) => trained.get(`${prefix}${name}`) as unknown as T | undefined;
  const weight = of<Tensor2D>("weight");
  if (!weight) return undefined;
  const dense = of<Tensor2D>("dense.weight");
  return {
    weight,
    bias: of("bias"),
    frozen: false,
    ...(dense && { dense: { weight: dense, bias: of("dense.bias")! } }),
  };
}
