import { existsSync } from "node:fs";
import { join } from "node:path";
import { at } from "../at.js";
import { UserError } from "../errors.js";
import { isFloat } from "../tensor/dtype.js";
import type { StackedExperts } from "../tensor/lora.js";
import { readJsonObject } from "./files.js";
import { adapterConfigName } from "./folder.js";
import { openSafetensors, type SafetensorsFile } from "./safetensors.js";
import { openTorchFile } from "./torch-file.js";

export const adapterWeightsName = "adapter_model.safetensors";

/** What an adapter has for one module; names are those in its file. */
export type AdapterPart = {
  /** As the model that it was trained on calls it. */
  readonly module: string;
} & (
  | {
      readonly kind: "lora";
      readonly a: string;
      readonly b: string;
      /** Of each expert, where it adapts several. */
      readonly rank: number;
      readonly scale: number;
      /** The module's parameter that it adapts, where that is not "weight" (target_parameters): a stack of experts. */
      readonly parameter?: string | undefined;
      /** DoRA's lengths of rows. */
      readonly magnitude?: string | undefined;
    }
  | { readonly kind: "ia3"; readonly l: string; readonly along: "in" | "out" }
);

/** An adapter's modules as the base calls their weights: the base's name → the part. */
export type AdaptedWeights = ReadonlyMap<string, AdaptedPart>;

/** What an adapter has for a weight of the base, and how that is stored. */
export type AdaptedPart = AdapterPart & {
  /** [in, out]. */
  readonly transposed: boolean;
  /** Of LoRA of a stack of experts: which of them the weight has. */
  readonly experts?: StackedExperts | undefined;
};

/** A PEFT folder with its file open. */
export interface Adapter {
  readonly folder: string;
  readonly kind: "lora" | "ia3";
  readonly config: Readonly<Record<string, unknown>>;
  readonly file: SafetensorsFile;
  readonly parts: readonly AdapterPart[];
  /** Tensors that it holds whole (heads, biases): the model's name → the name in its file. */
  readonly whole: ReadonlyMap<string, string>;
  /** Its config says that weights are stored [in, out]. */
  readonly fanInFanOut: boolean;
}

const finiteNumber = (path: string, key: string, value: unknown): number => {
  if (typeof value !== "number" || !Number.isFinite(value))
    throw new UserError(`${path}: "${key}" must be a number, it is ${JSON.stringify(value)}`);
  return value;
};

/** A pattern's value for a module: PEFT matches a key against the end of the module's name. */
function patterned(patterns: unknown, module: string, fallback: unknown): unknown {
  if (typeof patterns !== "object" || patterns === null) return fallback;
  for (const [key, value] of Object.entries(patterns))
    if (module === key || module.endsWith(`.${key}`) || matches(key, module)) return value;
  return fallback;
}

/** A key that is longer names no modules. */
const longestKey = 20_000;

/** @throws UserError where a key cannot be tried: passed over, it would leave a module with the wrong scale */
function matches(key: string, module: string): boolean {
  // A pattern from a file may take for ever: repeated groups are not tried.
  const isSafe = key.length <= longestKey && !/\)[+*{]/.test(key);
  try {
    // Python names groups in another way.
    if (isSafe) return new RegExp(`^(?:.*\\.)?(?:${key.replaceAll("(?P<", "(?<")})$`).test(module);
  } catch {
    // It is no pattern here.
  }
  throw new UserError(
    `adapter_config.json: the pattern ${JSON.stringify(key.slice(0, 80))} cannot be tried; write the modules' names ` +
      "in its place, or merge the adapter into its model with PEFT (merge_and_unload)",
  );
}

/** What cannot be merged as it stands, by the setting or tensor that says so. */
function refuse(path: string, config: Readonly<Record<string, unknown>>): void {
  const given = (key: string) =>
    config[key] !== undefined &&
    config[key] !== null &&
    config[key] !== false &&
    !(Array.isArray(config[key]) && config[key].length === 0);
  for (const key of [
    "layer_replication",
    "trainable_token_indices",
    "megatron_config",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "alora_invocation_tokens",
  ]) {
    if (given(key))
      throw new UserError(
        `${path}: "${key}" is not supported; merge the adapter into its model with PEFT ` +
          "(merge_and_unload) and give that",
      );
  }
  const start = config["init_lora_weights"];
  if (typeof start === "string" && /^(pissa|olora|loftq|corda|lora_ga)/i.test(start)) {
    throw new UserError(
      `${path}: "init_lora_weights": ${JSON.stringify(start)} makes it an adapter of a changed ` +
        "base; convert it to a plain one (save_pretrained with " +
        "path_initial_model_for_weight_conversion), or merge it into its model",
    );
  }
}

/** PEFT's names of the kindOfPeftType that can be merged. */
const kindOfPeftType = new Map<unknown, Adapter["kind"]>([
  ["LORA", "lora"],
  ["IA3", "ia3"],
]);

/** Opens an adapter's weights. */
function openAdapterFile(folder: string): Promise<SafetensorsFile> {
  const [own, older] = [join(folder, adapterWeightsName), join(folder, "adapter_model.bin")];
  if (existsSync(own)) return openSafetensors(own);
  if (existsSync(older)) return openTorchFile(older);
  throw new UserError(`${folder}: there is no ${adapterWeightsName}`);
}

/**
 * Opens a PEFT folder: LoRA (rsLoRA, patterns of ranks and alphas, saved modules) or (IA)³. Headers
 * only; nothing is read.
 */
export async function openAdapter(folder: string): Promise<Adapter> {
  const path = join(folder, adapterConfigName);
  const config = await readJsonObject(path);
  const kind = kindOfPeftType.get(config["peft_type"]);
  if (!kind)
    throw new UserError(
      `${path}: peft_type ${JSON.stringify(config["peft_type"])} is not supported, only LORA and IA3`,
    );
  refuse(path, config);
  const file = await openAdapterFile(folder);
  try {
    const { parts, whole } = findParts(file, kind, { path, config });
    return { folder, kind, config, file, parts, whole, fanInFanOut: config["fan_in_fan_out"] === true };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** adapter_config.json, and where it lies. */
interface AdapterConfig {
  readonly path: string;
  readonly config: Readonly<Record<string, unknown>>;
}

/** The sizes of a matrix in an adapter's file. @throws UserError where it is none, or of no type of weights */
function weightSizes(file: SafetensorsFile, name: string): [rows: number, columns: number] {
  const found = file.entries.get(name);
  if (!found) throw new UserError(`${file.path}: there is no "${name}"`);
  const { dtype, shape } = found;
  if (!isFloat(dtype))
    throw new UserError(`${file.path}: "${name}" is ${dtype}; a weight must be F32, F16 or BF16`);
  const [rows, columns] = shape;
  if (rows === undefined || columns === undefined || shape.length !== 2)
    throw new UserError(`${file.path}: "${name}" must be a matrix, it is [${shape.join(", ")}]`);
  return [rows, columns];
}

/** Parameters of a module of experts, in the order in which such modules define them. */
const expertParameters = ["gate_up_proj", "down_proj"];

/**
 * The parameter that a part of an adapter is of, where its config names parameters; undefined where it is a layer's
 * weight. Of two parameters of one module, PEFT puts what it has for the first into the `base_layer` of the second's.
 * @throws UserError where it is not known which of several it is
 */
function parameterOf(module: string, a: string, { path, config }: AdapterConfig): string | undefined {
  const targets: unknown = config["target_parameters"];
  if (!Array.isArray(targets)) return undefined;
  const named = targets
    .map((target) => String(target).split("."))
    .filter((parts) => `.${module}`.endsWith(`.${parts.slice(0, -1).join(".")}`))
    .map((parts) => at(parts, -1));
  if (named.length === 0 || named[0] === "weight") return undefined;
  const inOrder = expertParameters.filter((name) => named.includes(name));
  const depth = a.split(".base_layer.").length - 1;
  const found = inOrder.at(-1 - depth);
  if (inOrder.length !== named.length || found === undefined)
    throw new UserError(
      `${path}: "target_parameters" ${named.join(", ")} of one module are not supported; merge the adapter into its ` +
        "model with PEFT (merge_and_unload) and give that",
    );
  return found;
}

/** LoRA's part of a module. @param a the name of its matrix A */
function loraPart(
  file: SafetensorsFile,
  module: string,
  a: string,
  adapterConfig: AdapterConfig,
): AdapterPart {
  const { path, config } = adapterConfig;
  const b = a.replace(".lora_A", ".lora_B");
  const [rows] = weightSizes(file, a);
  const [, rowsB] = weightSizes(file, b);
  if (rows !== rowsB || rows === 0)
    throw new UserError(`${file.path}: "${a}" has rank ${rows}, "${b}" ${rowsB}`);
  const parameter = parameterOf(module, a, adapterConfig);
  const key = [module, parameter].filter(Boolean).join(".");
  let rank = rows;
  // A stack's matrices have the rank of all experts together.
  if (parameter !== undefined)
    rank = finiteNumber(path, "r", patterned(config["rank_pattern"], key, config["r"]));
  if (!(rank > 0) || rows % rank !== 0)
    throw new UserError(`${file.path}: "${a}" has ${rows} rows, which are no experts of rank ${rank}`);
  const alpha = patterned(config["alpha_pattern"], key, config["lora_alpha"]);
  const divisor = config["use_rslora"] === true ? Math.sqrt(rank) : rank;
  const lora = {
    module,
    kind: "lora",
    a,
    b,
    rank,
    scale: finiteNumber(path, "lora_alpha", alpha) / divisor,
    parameter,
  } as const;
  if (config["use_dora"] !== true) return lora;
  const vector = a.replace(/\.lora_A(?=\.).*$/, ".lora_magnitude_vector");
  const magnitude = [vector, `${vector}.weight`].find((name) => file.entries.has(name));
  if (magnitude === undefined)
    throw new UserError(`${file.path}: there is no "${vector}", and use_dora is set`);
  return { ...lora, magnitude };
}

/** (IA)³'s part of a module. @param l the name of its vector */
function ia3Part(file: SafetensorsFile, module: string, l: string): AdapterPart {
  const [rows, columns] = weightSizes(file, l);
  if (rows !== 1 && columns !== 1)
    throw new UserError(`${file.path}: "${l}" must be a row or a column, it is [${rows}, ${columns}]`);
  return { module, kind: "ia3", l, along: columns === 1 ? "out" : "in" };
}

/** What an adapter's file has for modules, and what it holds whole. */
function findParts(
  file: SafetensorsFile,
  kind: Adapter["kind"],
  config: AdapterConfig,
): Pick<Adapter, "parts" | "whole"> {
  const parts: AdapterPart[] = [];
  const whole = new Map<string, string>();
  for (const name of file.entries.keys()) {
    const plain = name
      .replace(/^base_model\.model\./, "")
      .replace(/(\.(modules_to_save(\.default)?|base_layer))+(?=\.)/, "");
    const [, loraModule] = /^(.+)\.lora_A(?:\.default)?\.weight$/.exec(plain) ?? [];
    const [, ia3Module] = /^(.+)\.ia3_l(?:\.default)?$/.exec(plain) ?? [];
    if (loraModule !== undefined && kind === "lora") {
      parts.push(loraPart(file, loraModule, name, config));
    } else if (ia3Module !== undefined && kind === "ia3") {
      parts.push(ia3Part(file, ia3Module, name));
    } else if (/\.(lora_B(\.default)?\.weight)$/.test(plain) && kind === "lora") {
      // Read with its A, which must be there.
      weightSizes(file, name.replace(".lora_B", ".lora_A"));
    } else if (/\.lora_magnitude_vector(\.weight)?$/.test(plain) && config.config["use_dora"] === true) {
      // Read with its A.
      weightSizes(file, name.replace(/\.lora_magnitude_vector(\.weight)?$/, ".lora_A.weight"));
    } else if (/lora_|ia3_|trainable_tokens/.test(plain)) {
      throw new UserError(
        `${file.path}: "${name}" is not supported; merge the adapter into its model with PEFT ` +
          "(merge_and_unload) and give that",
      );
    } else {
      whole.set(plain, name);
    }
  }
  if (parts.length === 0) throw new UserError(`${file.path}: it adapts no module`);
  return { parts, whole };
}
