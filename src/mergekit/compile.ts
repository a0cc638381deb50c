import type { Member } from "../checkpoint/family.js";
import { refOf } from "../disk/compile.js";
import type { MergePlan, PlannedTensor } from "../disk/plan.js";
import { UserError } from "../errors.js";
import { everyMethod } from "../methods/index.js";
import { resolveValues } from "../methods/values.js";
import { nearest } from "../nearest.js";
import { isFloat, type FloatDType } from "../tensor/dtype.js";
import { settingAt, type MergekitFile, type MergekitSource, type Settings } from "./file.js";
import { knownParameters, translations, type Translation } from "./methods.js";

type Scalar = number | boolean | string;
const dtypes: Record<string, FloatDType> = { float32: "F32", float16: "F16", bfloat16: "BF16" };

/** A tensor's place in a stack of layers: "encoder.layer", 3, "output.dense.weight"; undefined outside of any. */
function layerOf(name: string): { stack: string; index: number; rest: string } | undefined {
  const match = /^(.*?)\.(\d+)\.(.+)$/.exec(name);
  return match ? { stack: match[1]!, index: Number(match[2]), rest: match[3]! } : undefined;
}

/** Outside of layers, what comes before them: it takes its settings from the first slice, the rest from the last. */
const isBefore = (name: string): boolean => /embed|wte|wpe|tok_/.test(name);

/** How many layers a model has: of its longest stack. */
export const layerCount = ({ actual }: Member): number =>
  Math.max(0, ...[...actual.keys()].map((name) => (layerOf(name)?.index ?? -1) + 1));

export interface Compiled {
  readonly plan: MergePlan;
  /** Whose config and tokenizer the result gets. */
  readonly first: Member;
  readonly dtype: FloatDType | undefined;
  /** Layers of the result, where slices say how many. */
  readonly layers?: number | undefined;
  readonly kept: readonly { name: string; why: string }[];
}

interface Slice {
  readonly sources: readonly MergekitSource[];
  readonly base: string | undefined;
  readonly settings: Settings;
}

/** `models` as one slice of all layers; the base is one of the sources, as mergekit has it. */
function slicesOf({ models, slices, base_model }: MergekitFile, open: (model: string) => Member): Slice[] {
  const base = base_model ?? undefined;
  if (slices)
    return slices.map(({ sources, base_model: own, parameters }) => ({
      sources,
      base: own ?? base,
      settings: parameters,
    }));
  const listed = models!.map(({ model, parameters }) => ({ model, parameters }));
  const all =
    base !== undefined && !listed.some(({ model }) => model === base)
      ? [...listed, { model: base, parameters: undefined }]
      : listed;
  return [
    {
      sources: all.map(({ model, parameters }) => ({
        model,
        parameters,
        layer_range: [0, layerCount(open(model))],
      })),
      base,
      settings: undefined,
    },
  ];
}

/** Turns a mergekit file into a plan. @param open an opened model by the name that the file gives it */
export function compileMergekit(
  file: MergekitFile,
  open: (model: string) => Member,
  where: string,
  seed: number,
): Compiled {
  const translation = translations[file.merge_method];
  if (!translation)
    throw new UserError(
      `${where}: merge_method ${file.merge_method} is not ` +
        `supported${nearest(file.merge_method, Object.keys(translations))}; supported are ` +
        Object.keys(translations).join(", "),
    );
  const method = everyMethod.find(({ name }) => name === translation.method)!;
  const typeOf = (name: string | null | undefined, key: string): FloatDType | undefined => {
    if (name === undefined || name === null) return undefined;
    if (!Object.hasOwn(dtypes, name))
      throw new UserError(
        `${where}: ${key} ${name} is not supported; it must be one of ${Object.keys(dtypes).join(", ")}`,
      );
    return dtypes[name];
  };
  const [out, computed] = [typeOf(file.out_dtype, "out_dtype"), typeOf(file.dtype, "dtype")];
  const dtype = out ?? computed;
  const slices = slicesOf(file, open);
  for (const settings of [
    file.parameters,
    ...slices.flatMap((slice) => [slice.settings, ...slice.sources.map((source) => source.parameters)]),
  ]) {
    const stray = Object.keys(settings ?? {}).find((key) => !knownParameters.has(key));
    if (stray !== undefined)
      throw new UserError(`${where}: parameter ${stray} is not supported${nearest(stray, knownParameters)}`);
  }
  const first = open(slices[0]!.base ?? slices[0]!.sources[0]!.model);
  const kept: { name: string; why: string }[] = [];

  const tensorOf = (
    slice: Slice,
    name: string,
    inputName: (source: MergekitSource) => string,
    t: number,
  ): PlannedTensor => {
    const refs = slice.sources.map((source) => ({
      source,
      name: inputName(source),
      ref: refOf(open(source.model), inputName(source)),
    }));
    const own = refOf(
      open(slice.base ?? slice.sources[0]!.model),
      inputName(slice.sources.find(({ model }) => model === slice.base) ?? slice.sources[0]!),
    );
    if (!own)
      throw new UserError(
        `${where}: ${slice.base ?? slice.sources[0]!.model} has no tensor "${name}", which the others have`,
      );
    const target = isFloat(own.dtype) ? (dtype ?? own.dtype) : own.dtype;
    const unlike = refs.find(
      ({ ref }) => !ref || !isFloat(ref.dtype) || ref.shape.join() !== own.shape.join(),
    );
    if (unlike || !isFloat(own.dtype)) {
      kept.push({
        name,
        why: unlike ? `${unlike.source.model} has none of its kind` : `${own.dtype} is not merged`,
      });
      return { name, dtype: target, shape: own.shape, copy: own, inputs: [], values: {} };
    }
    const isBase = (source: MergekitSource) => translation.base !== "ignored" && source.model === slice.base;
    const base = refs.find(({ source }) => isBase(source));
    if (!base && translation.base !== "ignored" && translation.base !== "optional")
      throw new UserError(`${where}: ${file.merge_method} needs a base_model that is one of the models`);
    // slerp's base is where it starts from.
    const rest = refs.filter((entry) => entry !== base);
    const inputs = translation.base === "first" ? [base!, ...rest] : rest;
    const values = valuesFor(translation, { file, slice, where }, { name, inputs, t });
    return {
      name,
      dtype: target,
      shape: own.shape,
      base: translation.base === "first" ? undefined : base?.ref,
      inputs: inputs.map(({ ref }) => ref!),
      labels: inputs.map(({ source }) => source.model),
      values: resolveValues(method, { ...values, seed }, inputs.length, (key) => `${where}: ${key}`),
    };
  };

  const nameIn = ({ actual }: Member, canonical: string): string => actual.get(canonical) ?? canonical;
  const tensors: PlannedTensor[] = [];
  const canonical = new Map([...first.actual].map(([name, stored]) => [stored, name]));
  const around = first.checkpoint.names
    .map((stored) => canonical.get(stored)!)
    .filter((name) => !layerOf(name));
  const outer = (slice: Slice, names: readonly string[]) => {
    for (const name of names) tensors.push(tensorOf(slice, nameIn(first, name), () => name, 0));
  };
  outer(slices[0]!, around.filter(isBefore));
  let at = 0;
  for (const slice of slices) {
    const [lead] = slice.sources as [MergekitSource];
    const count = lead.layer_range[1] - lead.layer_range[0];
    if (slice.sources.some(({ layer_range: [from, to] }) => to - from !== count))
      throw new UserError(`${where}: all sources of a slice must have the same number of layers`);
    const member = open(lead.model);
    for (const {
      model,
      layer_range: [from, to],
    } of slice.sources) {
      if (to > layerCount(open(model)))
        throw new UserError(
          `${where}: ${model} has ${layerCount(open(model))} layers, ` +
            `${file.slices ? "layer_range asks for" : "the others have"} ${from} to ${to}`,
        );
    }
    for (let index = 0; index < count; index++) {
      const t = count > 1 ? index / (count - 1) : 1;
      const from = lead.layer_range[0] + index;
      for (const stored of member.checkpoint.names) {
        const name = canonicalIn(member, stored);
        const layer = layerOf(name);
        if (layer?.index !== from) continue;
        const renamed = `${layer.stack}.${at + index}.${layer.rest}`;
        tensors.push(
          tensorOf(
            slice,
            storedAs(first, layer.stack, renamed),
            (source) => `${layer.stack}.${source.layer_range[0] + index}.${layer.rest}`,
            t,
          ),
        );
      }
    }
    at += count;
  }
  outer(
    slices.at(-1)!,
    around.filter((name) => !isBefore(name)),
  );
  return {
    plan: {
      method: method.name,
      labels: [...new Set(tensors.flatMap(({ labels = [] }) => labels))],
      tensors,
    },
    first,
    dtype,
    kept,
    ...(file.slices && { layers: at }),
  };
}

const canonicalNames = new WeakMap<Member, Map<string, string>>();
function canonicalIn(member: Member, stored: string): string {
  let names = canonicalNames.get(member);
  if (!names)
    canonicalNames.set(member, (names = new Map([...member.actual].map(([name, own]) => [own, name]))));
  return names.get(stored)!;
}

/** What a model would call a tensor of one of its stacks: with the prefix ("bert.") that it has before the others. */
function storedAs({ actual }: Member, stack: string, name: string): string {
  const [own, stored] = [...actual].find(([canonical]) => canonical.startsWith(`${stack}.`)) ?? ["", ""];
  return stored.slice(0, stored.length - own.length) + name;
}

/** A tensor's parameters: the most particular setting that says something, else mergekit's default. */
function valuesFor(
  { shared, each, values }: Translation,
  { file, slice, where }: { file: MergekitFile; slice: Slice; where: string },
  {
    name,
    inputs,
    t,
  }: { name: string; inputs: readonly { source: MergekitSource; name: string }[]; t: number },
): Record<string, unknown> {
  const pick = (
    key: string,
    fallback: Scalar | undefined,
    levels: readonly Settings[],
    tensor: string,
    whose: string,
  ): Scalar => {
    for (const level of levels) {
      const value = level && Object.hasOwn(level, key) ? settingAt(level[key]!, tensor, t) : undefined;
      if (value !== undefined) return value;
    }
    if (fallback === undefined)
      throw new UserError(`${where}: ${file.merge_method} needs the parameter ${key}${whose}`);
    return fallback;
  };
  const forAll = [slice.settings, file.parameters];
  return values(
    Object.fromEntries(
      Object.entries(shared).map(([key, fallback]) => [
        key,
        pick(key, fallback, forAll, name, ` for ${name}`),
      ]),
    ),
    Object.fromEntries(
      Object.entries(each).map(([key, fallback]) => [
        key,
        inputs.map(({ source, name: own }) =>
          pick(key, fallback, [source.parameters, ...forAll], own, ` for ${source.model}, ${own}`),
        ),
      ]),
    ),
  );
}
