/** Where in a base an adapter's parts belong. */
import { lookUp } from "../at.js";
import { UserError } from "../errors.js";
import { elements } from "../tensor/dtype.js";
import type { AdaptedPart, AdaptedWeights, Adapter } from "./adapter.js";
import { isStackPart, stackNames, stackPlaces } from "./experts.js";
import { entryOf, type Checkpoint } from "./folder.js";
import { isOptional, isOutputLayer, namesAs, scoresTokens } from "./names.js";

/** The sizes of the layer that a weight of [rows, columns] as it is stored belongs to; undefined of another shape. */
function layerSizes(
  transposed: boolean,
  shape: readonly number[],
): { input: number; out: number } | undefined {
  const [rows, columns] = shape;
  if (rows === undefined || columns === undefined || shape.length !== 2) return undefined;
  return transposed ? { input: rows, out: columns } : { input: columns, out: rows };
}

/** Whether what an adapter has for a module is as large as the base's weight. */
function partFits({ file }: Adapter, part: AdaptedPart, shape: readonly number[]): boolean {
  const layer = layerSizes(part.transposed, shape);
  if (!layer) return false;
  if (part.kind === "lora")
    return file.entry(part.a).shape[1] === layer.input && file.entry(part.b).shape[0] === layer.out;
  return elements(file.entry(part.l).shape) === (part.along === "in" ? layer.input : layer.out);
}

/** Layers of GPT-2 and its kin that are stored [in, out]: transformers' Conv1D. */
const conv1d = /(^|\.)(c_attn|q_attn|c_proj|c_fc)$/;
const conv1dTypes = ["gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp", "gpt_sw3"];

/**
 * Whether a module's weight is stored [in, out]. As in PEFT the layer decides, where it is known, and not the
 * adapter's `fan_in_fan_out`.
 */
function isTransposed({ config }: Checkpoint, { fanInFanOut }: Adapter, module: string): boolean {
  const type = config["model_type"];
  if (typeof type !== "string") return fanInFanOut;
  return conv1dTypes.includes(type) && conv1d.test(module);
}

/** @throws UserError where what an adapter holds whole cannot stand in the place of the base's */
function checkWhole(
  base: Checkpoint,
  { folder, file }: Adapter,
  { name, inFile }: { readonly name: string; readonly inFile: string },
): void {
  const { shape } = file.entry(inFile);
  const own = base.entry(name)?.shape;
  // A head may have labels of its own.
  if (own && own.join() !== shape.join() && !(isOptional(name) && !isOutputLayer(name)))
    throw new UserError(
      `${folder}: it holds "${name}" with [${shape.join(", ")}], ${base.folder} has [${own.join(", ")}]: ` +
        "its vocabulary was resized. Merge it into its model with PEFT (resize_token_embeddings, " +
        "merge_and_unload) and give that",
    );
  if (!own && isOutputLayer(name) && scoresTokens(base.config))
    throw new UserError(
      `${folder}: it holds "${name}" whole, and in ${base.folder} the output layer is tied to the embeddings; ` +
        "merge it into its model with PEFT (merge_and_unload), untied, and give that and an untied base",
    );
  if (!own && !isOptional(name))
    throw new UserError(
      `${folder}: it holds "${name}" whole, which ${base.folder} has not; was it trained on this base?`,
    );
}

/**
 * Finds each of an adapter's modules in the base, and checks that they fit. @throws UserError naming
 * the first that does not
 */
export function findModules(
  base: Checkpoint,
  adapter: Adapter,
): { adapted: AdaptedWeights; whole: ReadonlyMap<string, string> } {
  // What the model that it was trained on calls its tensors, and what the base's file does.
  const names = namesAs(base, {
    config: base.config,
    names: [
      ...adapter.parts.flatMap(({ module }) => [`${module}.weight`, `${module}.bias`]),
      ...adapter.parts.filter(isStackPart).flatMap((part) => stackNames(adapter, part)),
      ...adapter.whole.keys(),
    ],
  });
  const storedAs = (name: string): string | undefined => {
    const stored = lookUp(names, name);
    return base.entry(stored) && stored;
  };
  const adapted = new Map<string, AdaptedPart>();
  const { folder } = adapter;
  for (const own of adapter.parts) {
    const { module } = own;
    if (isStackPart(own)) {
      for (const [name, part] of stackPlaces({ base, adapter, storedAs }, own)) adapted.set(name, part);
      continue;
    }
    const part: AdaptedPart = { ...own, transposed: isTransposed(base, adapter, module) };
    const name = storedAs(`${module}.weight`);
    if (name === undefined) {
      const why = isOutputLayer(`${module}.weight`)
        ? ": its output layer is tied to the embeddings, and a product added to the one would change the other"
        : "; was it trained on this base?";
      throw new UserError(`${folder}: it adapts "${module}", which ${base.folder} has not${why}`);
    }
    const { shape } = entryOf(base, name);
    if (!partFits(adapter, part, shape))
      throw new UserError(
        `${folder}: what it has for "${module}" does not fit the base's [${shape.join(", ")}]; ` +
          "was it trained on this base?",
      );
    if (part.kind === "lora" && part.magnitude !== undefined && part.transposed)
      throw new UserError(
        `${folder}: DoRA on "${module}", which is stored [in, out], is not supported; merge the adapter into its ` +
          "model with PEFT (merge_and_unload) and give that",
      );
    adapted.set(name, part);
    // (IA)³ scales what a layer gives, its bias too.
    const bias = storedAs(`${module}.bias`);
    if (part.kind === "ia3" && part.along === "out" && bias !== undefined) adapted.set(bias, part);
  }
  const whole = new Map([...adapter.whole].map(([name, inFile]) => [lookUp(names, name), inFile]));
  for (const [name, inFile] of whole) checkWhole(base, adapter, { name, inFile });
  return { adapted, whole };
}

/** What stands before a base's name of a module in an adapter ("+model."), or the other way round ("-model."). */
function prefixOf(weight: string, module: string): string | undefined {
  const own = weight.replace(/\.weight$/, "");
  if (own === module) return "+";
  if (module.endsWith(`.${own}`)) return `+${module.slice(0, module.length - own.length)}`;
  if (own.endsWith(`.${module}`)) return `-${own.slice(0, own.length - module.length)}`;
  return undefined;
}

/** A base's name of a module with a prefix put on or taken off. */
function withPrefix(weight: string, prefix: string): string {
  const own = weight.replace(/\.weight$/, "");
  const text = prefix.slice(1);
  if (prefix.startsWith("+")) return text + own;
  return own.startsWith(text) ? own.slice(text.length) : own;
}

/**
 * Adapters as one of them spells its modules: PEFT passes over names that the others do not share. What the first has
 * not is called as it would call it.
 */
export function inOneSpelling(adapters: readonly AdaptedWeights[]): AdaptedWeights[] {
  const [first, ...others] = adapters;
  if (!first) return [];
  const [prefix] = [...first].flatMap(([weight, { module }]) => prefixOf(weight, module) ?? []);
  const renamed = (weight: string, part: AdaptedPart): AdaptedPart => {
    const own = first.get(weight)?.module;
    if (own !== undefined) return { ...part, module: own };
    const isKnown = prefix !== undefined && prefixOf(weight, part.module) !== undefined;
    return isKnown ? { ...part, module: withPrefix(weight, prefix) } : part;
  };
  return [
    first,
    ...others.map((other) => new Map([...other].map(([weight, part]) => [weight, renamed(weight, part)]))),
  ];
}
