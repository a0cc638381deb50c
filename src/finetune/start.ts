import seedrandom from "seedrandom";
import type { SplitName } from "../tasks/split.js";
import type { EngineName } from "../backend/index.js";
import { UserError } from "../errors.js";
import { isNoLinearLayer, type AdapterModules, type ShapedAdapterModule } from "../adapter-modules.js";
import type { Member } from "../checkpoint/family.js";
import { areEmbedded, headKind } from "../inputs/prepare.js";
import type { HeadNames, Model, ModelFamily } from "../models/types.js";
import type { Task } from "../tasks/registry.js";

export interface FinetuneOptions {
  readonly base: string;
  /** One: an expert. Several: one model of all of them, with a head each. */
  readonly tasks: readonly string[];
  readonly data: string;
  /** Columns of its files by what they are: see TaskKnowledge (inputs/data.ts). */
  readonly columns?: Readonly<Record<string, string>> | undefined;
  readonly out: string;
  readonly how: "full" | "lora" | "ia3";
  readonly rank: number;
  readonly alpha: number;
  readonly epochs: number;
  readonly lr: number;
  readonly weightDecay: number;
  readonly batchSize: number;
  readonly microBatch: number;
  /** Examples of each training set that are used, drawn by the seed; all without. */
  readonly most?: number | undefined;
  readonly maxLength: number;
  readonly prompts?: string | undefined;
  /** `--chat-template`. */
  readonly chatTemplate?: string | undefined;
  /** `tenth`: a tenth of the training examples is kept for merges, and chooses the epoch. */
  readonly split?: SplitName | undefined;
  readonly seed: number;
  /** Draws the order of the examples alone (default: the seed does). */
  readonly order?: number | undefined;
  readonly backend: EngineName | "auto";
  readonly resume: boolean;
  /** Writes over a finished fine-tuning. */
  readonly overwrite?: boolean | undefined;
}

/** Numbers that a tensor starts from. */
export interface Start {
  readonly shape: number[];
  readonly values: Float32Array;
}

/** Normal numbers of a deviation, by seed and name: the same on every engine. */
function normal(size: number, deviation: number, seed: string): Float32Array {
  const random = seedrandom(seed);
  return Float32Array.from(
    { length: size },
    () => deviation * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()),
  );
}

/** BERT's and ALBERT's dense layer behind all others, which may be the heads': no adapter stands beside it. */
const isPooler = (module: string): boolean => /(^|\.)pooler(\.dense)?$/.test(module);

/** Linear layers in a model's blocks that adapters may stand beside. */
interface LinearModule {
  readonly module: string;
  readonly out: number;
  readonly input: number;
}

function linearModules(model: Model): LinearModule[] {
  const found: LinearModule[] = [];
  for (const [name, [first = 0, second = 0, ...more]] of model.parameters) {
    const module = name.replace(/\.weight$/, "");
    if (
      !name.endsWith(".weight") ||
      second === 0 ||
      more.length > 0 ||
      isNoLinearLayer(module) ||
      isPooler(module)
    )
      continue;
    // A weight that is stored [in, out].
    if (model.transposed?.has(module)) found.push({ module, out: second, input: first });
    else found.push({ module, out: first, input: second });
  }
  return found;
}

/** (IA)³: what comes out of keys and values, what goes into the second layer of a feed-forward (Liu et al. 2022). */
const scaledOut =
  /(^|[._])(key|value|k|v|k_proj|v_proj|key_proj|value_proj|k_lin|v_lin|c_attn|query_key_value)$/;
const scaledIn =
  /(^|\.)(DenseReluDense\.wo|down_proj|fc2|ffn_output|lin2|dense_4h_to_h|mlp\.c_proj|\d+\.output\.dense)$/;

/** Which side of a linear layer (IA)³ scales: what comes out, what goes in, or neither. */
function scaledSide(module: string): "out" | "in" | undefined {
  if (scaledOut.test(module)) return "out";
  return scaledIn.test(module) ? "in" : undefined;
}

/** What an adapter adds to a model: its modules, where its tensors start, and those that are not trained. */
export interface FreshAdapter {
  readonly adapterModules: AdapterModules;
  readonly start: ReadonlyMap<string, Start>;
  readonly fixed: ReadonlyMap<string, Start>;
}

/** One module's part: what stands beside it, and its tensors. */
interface FreshModule {
  readonly module: string;
  readonly adapter: ShapedAdapterModule;
  readonly start: readonly (readonly [string, Start])[];
  readonly fixed: readonly (readonly [string, Start])[];
}

/** LoRA as PEFT begins it: A uniform in ±1/√in, B nothing, so that nothing is added. */
function freshLora(
  { module, out, input }: LinearModule,
  { rank, alpha, seed }: FinetuneOptions,
): FreshModule {
  const [a, b, d] = [`${module}.lora_A`, `${module}.lora_B`, `${module}.lora_d`];
  const random = seedrandom(`${seed}/${a}`);
  const draw = () => (2 * random() - 1) / Math.sqrt(input);
  return {
    module,
    adapter: {
      lora: true,
      shapes: [
        [a, [rank, input]],
        [b, [out, rank]],
        [d, [rank]],
      ],
    },
    start: [
      [a, { shape: [rank, input], values: Float32Array.from({ length: rank * input }, draw) }],
      [b, { shape: [out, rank], values: new Float32Array(out * rank) }],
    ],
    fixed: [[d, { shape: [rank], values: new Float32Array(rank).fill(alpha / rank) }]],
  };
}

/** (IA)³: ones, where the layer is one that is scaled. */
function freshIa3({ module, out, input }: LinearModule): FreshModule | undefined {
  const along = scaledSide(module);
  if (!along) return undefined;
  const size = along === "out" ? out : input;
  const name = `${module}.ia3_l`;
  return {
    module,
    adapter: { ia3: along, shapes: [[name, [size]]] },
    start: [[name, { shape: [size], values: new Float32Array(size).fill(1) }]],
    fixed: [],
  };
}

/** @throws UserError where the model has no layer that such an adapter stands beside */
export function freshAdapter(model: Model, options: FinetuneOptions): FreshAdapter {
  const { how } = options;
  if (how === "full") return { adapterModules: new Map(), start: new Map(), fixed: new Map() };
  const modules = linearModules(model)
    .map((one) => (how === "lora" ? freshLora(one, options) : freshIa3(one)))
    .filter((one) => one !== undefined);
  if (modules.length === 0)
    throw new UserError(`--${how}: this model has no linear layers that such an adapter stands beside`);
  return {
    adapterModules: new Map(modules.map(({ module, adapter }) => [module, adapter])),
    start: new Map(modules.flatMap(({ start }) => start)),
    fixed: new Map(modules.flatMap(({ fixed }) => fixed)),
  };
}

/**
 * What the heads of a fine-tuning are called, and whether they have the model's pooler: where the base has none, or a
 * task is answered token by token, as transformers' classes for that have none.
 */
export function freshHeadForm(
  { head, pooler, outputLayers }: ModelFamily,
  base: Member,
  tasks: readonly Task[],
): { readonly head: HeadNames | undefined; readonly withoutPooler: boolean } {
  if (areEmbedded(tasks, outputLayers)) return { head: undefined, withoutPooler: true };
  if (outputLayers[0] !== "pool" || !head) return { head: undefined, withoutPooler: false };
  if (pooler === undefined) return { head, withoutPooler: false };
  const withoutPooler =
    !base.actual.has(`${pooler}.weight`) || tasks.some((task) => headKind(task) !== "row");
  return { head: withoutPooler ? { ...head, dense: pooler } : head, withoutPooler };
}

/** A head of small random numbers, in a model's own form. */
export function freshHead(
  names: HeadNames,
  prefix: string,
  { outputs, width, seed }: { readonly outputs: number; readonly width: number; readonly seed: number },
): Map<string, Start> {
  const matrix = (rows: number, name: string): Start => ({
    shape: [rows, width],
    values: normal(rows * width, 0.02, name),
  });
  const zeros = (size: number): Start => ({ shape: [size], values: new Float32Array(size) });
  const out = new Map([[`${prefix}weight`, matrix(outputs, `${seed}/${prefix}`)]]);
  if (names.bias !== undefined) out.set(`${prefix}bias`, zeros(outputs));
  if (names.dense !== undefined) {
    out.set(`${prefix}dense.weight`, matrix(width, `${seed}/${prefix}dense`));
    out.set(`${prefix}dense.bias`, zeros(width));
  }
  return out;
}
