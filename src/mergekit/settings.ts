import { UserError } from "../errors.js";
import { readNumber } from "../methods/values.js";
import {
  settingAt,
  type MergekitFile,
  type MergekitModule,
  type MergekitScalar,
  type MergekitSettings,
  type MergekitSource,
} from "./file.js";
import type { Translation } from "./methods.js";
import type { Slice } from "./slices.js";

/** A tensor of the result. */
export interface ResultTensor {
  readonly name: string;
  /** Where its layer stands in its slice: 0 for the first, 1 for the last. */
  readonly t: number;
}

/** A source's tensor, by its canonical name. */
export interface NamedSource {
  readonly source: MergekitSource;
  readonly name: string;
}

/** What the first of these settings that says something says of a tensor. */
function settingIn(
  levels: readonly MergekitSettings[],
  key: string,
  tensor: string,
  t: number,
): MergekitScalar | undefined {
  for (const level of levels) {
    const setting = level?.[key];
    const value = setting === undefined ? undefined : settingAt(setting, tensor, t);
    if (value !== undefined) return value;
  }
  return undefined;
}

/** Whose settings are read. */
interface SettingsContext {
  readonly file: MergekitFile;
  readonly module: MergekitModule;
  readonly translation: Translation;
  /** The file's name, for messages. */
  readonly where: string;
  /** The line of the first key of this name whose value is this. */
  lineWhere(key: string, value: unknown): number | undefined;
}

/** Shares: from 0 to 1. */
const upToOne: readonly string[] = ["density", "gamma", "epsilon", "select_topk"];

/** @throws UserError naming the line where a value is out of its range, in the file's own words */
function checkRange({ where, lineWhere }: SettingsContext, key: string, value: MergekitScalar): void {
  const number = readNumber(value);
  if (!upToOne.includes(key) || (typeof number === "number" && number >= 0 && number <= 1)) return;
  const line = lineWhere(key, value) ?? lineWhere(key, undefined);
  throw new UserError(`${where}: line ${line}: ${key} ${String(value)}: it must be from 0 to 1`);
}

/** @throws UserError where weights are to be divided by their sum, and that is 0 */
function checkSum({ where, lineWhere, file }: SettingsContext, normalize: unknown, weights: unknown): void {
  if (file.merge_method !== "linear" || !normalize || !Array.isArray(weights)) return;
  const numbers = weights.map(readNumber).map(Number);
  if (numbers.reduce((sum, weight) => sum + weight, 0) !== 0) return;
  throw new UserError(
    `${where}: line ${lineWhere("weight", undefined)}: the weights ${weights.join(", ")} add up to 0, and nothing ` +
      "can be divided by that; change them, or write normalize: false",
  );
}

/** A tensor's parameters: the most particular setting that says something, else mergekit's default. */
export function valuesFor(
  context: SettingsContext,
  slice: Slice,
  { name, t }: ResultTensor,
  inputs: readonly NamedSource[],
): Record<string, unknown> {
  const {
    translation: { shared, each, values },
    file,
    module,
    where,
  } = context;
  const forAll = [slice.settings, module.parameters, file.parameters];
  const required = (key: string, value: MergekitScalar | undefined, whose: string): MergekitScalar => {
    if (value === undefined)
      throw new UserError(`${where}: ${file.merge_method} needs the parameter ${key} for ${whose}`);
    checkRange(context, key, value);
    return value;
  };
  const ofAll = mapValues(shared, (key, fallback) =>
    required(key, settingIn(forAll, key, name, t) ?? fallback, name),
  );
  const ofEach = mapValues(each, (key, fallback) =>
    inputs.map(({ source, name: own }) => {
      const value = settingIn([source.parameters, ...forAll], key, own, t) ?? fallback;
      return required(key, value, `${source.model}, ${own}`);
    }),
  );
  checkSum(context, ofAll["normalize"], ofEach["weight"]);
  return values(ofAll, ofEach);
}

const mapValues = <A, B>(
  record: Readonly<Record<string, A>>,
  change: (key: string, value: A) => B,
): Record<string, B> =>
  Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(key, value)]));
