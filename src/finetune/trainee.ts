/** The tensors of a fine-tuning on the device: the model, what of it is trained, and its best epoch. */
import { tensor, variable, zerosLike, type Tensor, type Variable } from "@tensorflow/tfjs-core";
import { at, lookUp } from "../at.js";
import type { Member } from "../checkpoint/family.js";
import { outputsOf } from "../inputs/models.js";
import { headKind } from "../inputs/prepare.js";
import { headNamesFor } from "../models/layers.js";
import type { AdapterModules } from "../adapter-modules.js";
import { withAdapters } from "../models/adapters.js";
import type { HeadNames, Model } from "../models/types.js";
import { loadWeights } from "../statistics/weights.js";
import type { Task } from "../tasks/registry.js";
import type { DeviceMoments, Trainee } from "../train/weights.js";
import { freshHead, type FinetuneOptions, type FreshAdapter, type Start } from "./start.js";
import type { VariableMaps } from "./state.js";

/** A trainee, AdamW's moments, and a copy of the best epoch's tensors. */
export interface LoadedTrainee {
  readonly trainee: Trainee;
  readonly moments: DeviceMoments;
  readonly best: ReadonlyMap<string, Variable>;
  readonly adapterModules: AdapterModules;
  /** Everything that a state holds. */
  readonly maps: VariableMaps;
  /** Keeps the present tensors as the best. */
  keepBest(): void;
  dispose(): void;
}

const uploaded = (starts: ReadonlyMap<string, Start>): [string, Tensor][] =>
  [...starts].map(([name, { shape, values }]) => [name, tensor(values, shape)]);

/** Variables of tensors, which are freed. */
function variablesOf(tensors: Iterable<readonly [string, Tensor]>): Map<string, Variable> {
  const made = new Map<string, Variable>();
  for (const [name, value] of tensors) {
    made.set(name, variable(value));
    value.dispose();
  }
  return made;
}

const zerosOf = (like: ReadonlyMap<string, Variable>): Map<string, Variable> =>
  variablesOf([...like].map(([name, v]) => [name, zerosLike(v)]));

/** Every task's new head, where the model has heads. */
function freshHeads(
  head: HeadNames | undefined,
  tasks: readonly { readonly task: Task; readonly prefix: string }[],
  width: number,
  seed: number,
): Map<string, Start> {
  if (!head) return new Map();
  return new Map(
    tasks.flatMap(({ task, prefix }) => [
      ...freshHead(
        headNamesFor(head, headKind(task), () => true),
        prefix,
        {
          outputs: outputsOf(task),
          width,
          seed,
        },
      ),
    ]),
  );
}

/** Puts a model on the device with what of it is trained: every weight, or an adapter; and new heads. */
export async function loadTrainee(
  {
    plain,
    base,
    head,
  }: { readonly plain: Model; readonly base: Member; readonly head: HeadNames | undefined },
  adapter: FreshAdapter,
  tasks: readonly { readonly task: Task; readonly prefix: string }[],
  { how, seed }: FinetuneOptions,
): Promise<LoadedTrainee> {
  const loaded = await loadWeights(plain, base);
  const weights = loaded.names.map((name, i): [string, Tensor] => [name, at(loaded.tensors, i)]);
  const fixed = new Map(how === "full" ? [] : [...weights, ...uploaded(adapter.fixed)]);
  const heads = uploaded(freshHeads(head, tasks, plain.width, seed));
  // Variables have handles of their own: the weights that they are made of are freed.
  const trained = variablesOf([...(how === "full" ? weights : uploaded(adapter.start)), ...heads]);
  const moments: DeviceMoments = { first: zerosOf(trained), second: zerosOf(trained), taken: new Map() };
  // Without an epoch, what it began with.
  const best = new Map([...trained].map(([name, v]) => [name, variable(v)]));
  const maps = { weight: trained, first: moments.first, second: moments.second, best };
  return {
    trainee: { model: withAdapters(plain, adapter.adapterModules), head, fixed, trained },
    moments,
    best,
    adapterModules: adapter.adapterModules,
    maps,
    keepBest() {
      for (const [name, v] of trained) lookUp(best, name).assign(v);
    },
    dispose() {
      for (const map of Object.values(maps)) map.forEach((v) => v.dispose());
      fixed.forEach((value) => value.dispose());
    },
  };
}
