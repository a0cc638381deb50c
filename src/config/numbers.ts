/**
 * Values as settings and options take them: a command line gives texts, YAML gives numbers, lists and flags. The
 * message of an error goes behind the option's name: "--steps x: it must be a whole number from 0 on".
 */
import { z } from "zod";

/** "a, b" → a and b. */
export const commaSeparated = (text: string): string[] =>
  text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);

function checked(holds: (value: number) => boolean, must: string) {
  return z.preprocess(
    (value) => (typeof value === "string" && value.trim() !== "" ? Number(value) : value),
    z.number({ error: must }).refine(holds, { error: must }),
  );
}

export const anyNumber = () => checked(Number.isFinite, "it must be a number");

export const wholeNumber = (least = 1) =>
  checked(
    (value) => Number.isSafeInteger(value) && value >= least,
    `it must be a whole number from ${least} on`,
  );

export const atLeast = (least: number) =>
  checked((value) => value >= least && Number.isFinite(value), `it must be a number from ${least} on`);

export const above = (bound: number) =>
  checked((value) => value > bound && Number.isFinite(value), `it must be a number above ${bound}`);

export const between = (least: number, most: number) =>
  checked((value) => value >= least && value <= most, `it must be from ${least} to ${most}`);

/** A share of a whole that is not nothing: above 0, at most 1. */
export const share = () => checked((value) => value > 0 && value <= 1, "it must be above 0, and 1 at most");

/** A rate of decay: from 0 to below 1. */
export const belowOne = () => checked((value) => value >= 0 && value < 1, "it must be from 0 to below 1");

const units = { "": 1, KB: 1e3, MB: 1e6, GB: 1e9 } as const;
const isUnit = (text: string): text is keyof typeof units => Object.hasOwn(units, text);

/** "500MB", "5GB" or a plain number → bytes, in powers of ten as transformers counts. */
export const bytes = z.preprocess(
  (value) => {
    const [, number, unit = ""] = /^(\d+(?:\.\d+)?)\s*(KB|MB|GB)?$/i.exec(String(value)) ?? [];
    const key = unit.toUpperCase();
    return number !== undefined && isUnit(key) ? Number(number) * units[key] : value;
  },
  z.number({ error: "it must be a size such as 500MB or 5GB" }).positive("it must be a size above 0"),
);

/** "a, b" → a and b; lists of YAML as they are. */
export function listOf(value: unknown): unknown {
  return typeof value === "string" ? commaSeparated(value) : value;
}

/** "a=b,c=d" → a: b, c: d; a mapping of YAML as it is. */
export const namedTexts = z.preprocess(
  (value) => {
    if (typeof value !== "string") return value;
    const pairs = commaSeparated(value).map((pair) => pair.split("=").map((part) => part.trim()));
    if (pairs.some(({ length }) => length !== 2)) return value;
    return Object.fromEntries(pairs) as unknown;
  },
  z.record(z.string(), z.string().min(1), { error: "it must be pairs such as text=body,label=stars" }),
);

export const nameList = z.preprocess(
  listOf,
  z
    .array(z.string())
    .min(1)
    .refine((list) => new Set(list).size === list.length, "a name is listed twice"),
);

/** A switch: off where nobody names it. */
export const flag = z.boolean({ error: "it must be true or false" }).default(false);
