import { UserError } from "../errors.js";
import { at } from "../at.js";
import type { Config } from "./types.js";

/** Reads settings of a config.json, each checked: a damaged config is refused before memory is asked for. */
export interface ConfigReader {
  /** A whole number in a range that no real model leaves. */
  size(key: string, least?: number, most?: number, fallback?: number): number;
  /** A number above 0. */
  positive(key: string, fallback?: number): number;
  flag(key: string, fallback: boolean): boolean;
  /** Refuses every value but these; an absent one is the first. */
  only<T>(key: string, ...allowed: T[]): T;
  /** How many heads of what width: refuses widths that no head count divides. */
  heads(key: string, width: number): number;
  /** What says that a value is not among those that can be read. */
  unsupported(key: string, allowed: readonly unknown[]): UserError;
}

const isWhole = (value: unknown): value is number => Number.isSafeInteger(value);

export function configReader(json: Config, type: string): ConfigReader {
  const wrong = (key: string, wanted: string, value: unknown) =>
    new UserError(`config.json: "${key}" must be ${wanted}, it is ${JSON.stringify(value)}`);
  const reader: ConfigReader = {
    size(key, least = 1, most = 1e6, fallback) {
      const value = json[key] ?? fallback;
      if (!isWhole(value) || value < least || value > most)
        throw wrong(key, `a whole number from ${least} to ${most}`, value);
      return value;
    },
    positive(key, fallback) {
      const value = json[key] ?? fallback;
      if (typeof value !== "number" || !Number.isFinite(value) || value <= 0)
        throw wrong(key, "a number above 0", value);
      return value;
    },
    flag(key, fallback) {
      const value = json[key] ?? fallback;
      if (typeof value !== "boolean") throw wrong(key, "true or false", value);
      return value;
    },
    only(key, ...allowed) {
      const value = json[key] ?? allowed[0];
      const found = allowed.findIndex((one) => one === value);
      if (found < 0) throw reader.unsupported(key, allowed);
      return at(allowed, found);
    },
    heads(key, width) {
      const heads = reader.size(key);
      if (width % heads)
        throw new UserError(`config.json: a width of ${width} is not a multiple of ${key} ${heads}`);
      return heads;
    },
    unsupported(key, allowed) {
      const value = json[key] ?? allowed[0];
      return new UserError(
        `config.json: "${key}": ${JSON.stringify(value)} is not supported for ${type}, only ` +
          allowed.map((one) => JSON.stringify(one)).join(", "),
      );
    },
  };
  return reader;
}

const isSection = (value: unknown): value is Config => typeof value === "object" && value !== null;

/** An object within a config; empty where there is none. */
export function sectionOf(json: Config, key: string): Config {
  const section = json[key];
  return isSection(section) ? section : {};
}

/** Settings nested under a key where a config has them so, else the config itself. */
export function sectionOrAll(json: Config, key: string): Config {
  const section = json[key] ?? json;
  if (!isSection(section)) throw new UserError(`config.json: "${key}" must be an object`);
  return section;
}

const layerKinds = ["full_attention", "sliding_attention"];

/** Which layers see a window alone: as the config lists them, else by a rule. */
export function slidingLayers(json: Config, layers: number, rule: (layer: number) => boolean): boolean[] {
  const { layer_types: given } = json;
  if (given == null) return Array.from({ length: layers }, (_, i) => rule(i));
  const isList = Array.isArray(given) && given.length === layers;
  if (!isList || !given.every((kind) => layerKinds.includes(String(kind))))
    throw configReader(json, String(json["model_type"])).unsupported("layer_types", [
      `${layers} of ${layerKinds.join(", ")}`,
    ]);
  return given.map((kind) => kind === "sliding_attention");
}
