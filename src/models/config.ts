import { UserError } from "../errors.js";
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
}

export function readConfig(json: Config, type: string): ConfigReader {
  const fail = (key: string, wanted: string, value: unknown): never => {
    throw new UserError(`config.json: "${key}" must be ${wanted}, it is ${JSON.stringify(value)}`);
  };
  const reader: ConfigReader = {
    size(key, least = 1, most = 1e6, fallback) {
      const value = json[key] ?? fallback;
      return Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most
        ? (value as number)
        : fail(key, `a whole number from ${least} to ${most}`, value);
    },
    positive(key, fallback) {
      const value = json[key] ?? fallback;
      return typeof value === "number" && Number.isFinite(value) && value > 0
        ? value
        : fail(key, "a number above 0", value);
    },
    flag(key, fallback) {
      const value = json[key] ?? fallback;
      return typeof value === "boolean" ? value : fail(key, "true or false", value);
    },
    only<T>(key: string, ...allowed: T[]): T {
      const value = json[key] ?? allowed[0];
      if (!allowed.includes(value as T))
        throw new UserError(
          `config.json: "${key}": ${JSON.stringify(value)} is not supported for ${type}, only ` +
            allowed.map((one) => JSON.stringify(one)).join(", "),
        );
      return value as T;
    },
    heads(key, width) {
      const heads = reader.size(key);
      if (width % heads)
        throw new UserError(`config.json: a width of ${width} is not a multiple of ${key} ${heads}`);
      return heads;
    },
  };
  return reader;
}
