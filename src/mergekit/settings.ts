import { UserError } from "../errors.js";
import {
  settingAt,
  type MergekitFile,
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
  readonly translation: Translation;
  /** The file's name, for messages. */
  readonly where: string;
}

/** A tensor's parameters: the most particular setting that says something, else mergekit's default. */
export function valuesFor(
  { translation: { shared, each, values }, file, where }: SettingsContext,
  slice: Slice,
  { name, t }: ResultTensor,
  inputs: readonly NamedSource[],
): Record<string, unknown> {
  const forAll = [slice.settings, file.parameters];
  const required = (key: string, value: MergekitScalar | undefined, whose: string): MergekitScalar => {
    if (value === undefined)
      throw new UserError(`${where}: ${file.merge_method} needs the parameter ${key} for ${whose}`);
    return value;
  };
  return values(
    mapValues(shared, (key, fallback) => required(key, settingIn(forAll, key, name, t) ?? fallback, name)),
    mapValues(each, (key, fallback) =>
      inputs.map(({ source, name: own }) => {
        const value = settingIn([source.parameters, ...forAll], key, own, t) ?? fallback;
        return required(key, value, `${source.model}, ${own}`);
      }),
    ),
  );
}

const mapValues = <A, B>(
  record: Readonly<Record<string, A>>,
  change: (key: string, value: A) => B,
): Record<string, B> =>
  Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(key, value)]));
