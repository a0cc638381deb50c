import { at } from "../at.js";
import type { Member } from "../checkpoint/family.js";
import { refOf, resultType, whyUnlike, type ShapedRef } from "../disk/compile.js";
import type { Unmerged } from "../disk/partners.js";
import type { MergePlan, PlannedTensor } from "../disk/plan.js";
import { UserError } from "../errors.js";
import { findMethod } from "../methods/index.js";
import type { Method } from "../methods/types.js";
import { resolveValues } from "../methods/values.js";
import { nearest } from "../nearest.js";
import { isFloat, type FloatDType } from "../tensor/dtype.js";
import { leadOf, type MergekitFile, type MergekitModule, type MergekitSource } from "./file.js";
import { knownParameters, translations, type Translation } from "./methods.js";
import { valuesFor, type NamedSource, type ResultTensor } from "./settings.js";
import { checkModules, partOf } from "./modules.js";
import { layersIn, layersOf, layerSettings, placeInStack, slicesOf, storedAs, type Slice } from "./slices.js";

const mergekitTypes: Record<string, FloatDType> = {
  float32: "F32",
  float16: "F16",
  bfloat16: "BF16",
  // Our arithmetic is float32's; readMergekit says so.
  float64: "F32",
};

/** Outside of layers, what comes before them: it takes its settings from the first slice, the rest from the last. */
const isBefore = (name: string): boolean => /embed|wte|wpe|tok_/.test(name);

export interface Compiled {
  readonly plan: MergePlan;
  /** Whose config and tokenizer the result gets. */
  readonly first: Member;
  readonly dtype: FloatDType | undefined;
  /** Settings of the result's config that say how many layers there are, and of what kind, where slices do. */
  readonly changes: Readonly<Record<string, unknown>>;
  readonly kept: readonly Unmerged[];
  /** Names that a model has and the result has not. */
  readonly left: readonly string[];
  /** Parameters that are passed over, a line each. */
  readonly notes: readonly string[];
}

/** What stays the same while a file is compiled. */
interface Compilation {
  readonly file: MergekitFile;
  readonly module: MergekitModule;
  /** An opened model by the name that the file gives it. */
  open(model: string): Member;
  /** The file's name, for messages. */
  readonly where: string;
  /** The line of the first key of this name whose value is this. */
  lineWhere(key: string, value: unknown): number | undefined;
  readonly seed: number;
  readonly translation: Translation;
  readonly method: Method;
  readonly dtype: FloatDType | undefined;
  /** The model whose names the result gets. */
  readonly first: Member;
  readonly kept: Unmerged[];
}

type Place = Pick<Compilation, "where" | "lineWhere">;

/** Turns a mergekit file into a plan. @param open an opened model by the name that the file gives it */
export function compileMergekit(
  file: MergekitFile,
  open: (model: string) => Member,
  { where, lineWhere }: Place,
  seed: number,
): Compiled {
  const translation = translationOf(file, where);
  const [written, computed] = [
    floatType(file.out_dtype, `${where}: out_dtype`),
    floatType(file.dtype, `${where}: dtype`),
  ];
  const dtype = written ?? computed;
  const method = findMethod(translation.method);
  const shared = { file, where, lineWhere, seed, translation, method, dtype };
  const first = open(leadOf(file));
  checkModules(file, first, `${where}: line ${lineWhere("modules", undefined)}: modules`);
  const parts = file.modules.map((module) =>
    compileModule({ ...shared, module, open: (model) => partOf(open(model), module) }),
  );
  const tensors = parts.flatMap((part) => part.tensors);
  const labels = [...new Set(tensors.flatMap((tensor) => tensor.labels ?? []))];
  return {
    plan: { method: method.name, labels, tensors },
    first,
    dtype,
    changes: Object.assign({}, ...parts.map(({ changes }) => changes)),
    kept: parts.flatMap(({ kept }) => kept),
    left: parts.flatMap(({ left }) => left),
    notes: [...new Set(parts.flatMap(({ notes }) => notes))],
  };
}

/** What a module of a file comes to. */
interface CompiledModule extends Pick<Compiled, "changes" | "kept" | "left" | "notes"> {
  readonly tensors: readonly PlannedTensor[];
}

/** Plans one module. @param given whose `open` gives the module's part of a model */
function compileModule(given: Omit<Compilation, "first" | "kept">): CompiledModule {
  const { file, module, open, where } = given;
  const slices = slicesOf(module, file.base_model ?? undefined, open);
  const notes = strayParameters(given, slices);
  const [firstSlice, lastSlice] = [at(slices, 0), at(slices, -1)];
  const first = open(firstSlice.base ?? firstSlice.lead.model);
  const compilation: Compilation = { ...given, first, kept: [] };
  const outside = [...first.actual].filter(([canonical]) => !placeInStack(canonical));
  const outer = (slice: Slice, isWanted: (canonical: string) => boolean): PlannedTensor[] =>
    outside
      .filter(([canonical]) => isWanted(canonical))
      .map(([canonical, name]) => planTensor(compilation, slice, { name, t: 0, nameIn: () => canonical }));
  const tensors = outer(firstSlice, isBefore);
  let layers = 0;
  for (const slice of slices) {
    const count = layersOf(slice, module, open, where);
    for (let index = 0; index < count; index++)
      tensors.push(...planLayer(compilation, slice, { index, to: layers + index }));
    layers += count;
  }
  tensors.push(...outer(lastSlice, (canonical) => !isBefore(canonical)));
  const { kept } = compilation;
  if (module.slices) return { tensors, kept, notes, changes: layerSettings(slices, open), left: [] };
  return { tensors, kept, notes, changes: {}, left: strays(first, slices, open) };
}

/** Names that some source has and the result has not. */
function strays(first: Member, slices: readonly Slice[], open: Compilation["open"]): string[] {
  const sources = slices.flatMap((slice) => slice.sources.map(({ model }) => open(model)));
  const names = sources.flatMap(({ actual }) => [...actual.keys()]);
  return [...new Set(names)].filter((name) => !first.actual.has(name));
}

/** @throws UserError where we do not have the file's method */
function translationOf({ merge_method }: MergekitFile, where: string): Translation {
  const found = Object.hasOwn(translations, merge_method) && translations[merge_method];
  if (!found)
    throw new UserError(
      `${where}: merge_method ${merge_method} is not ` +
        `supported${nearest(merge_method, Object.keys(translations))}; supported are ` +
        Object.keys(translations).join(", "),
    );
  return found;
}

/** @param where the file and its key */
function floatType(name: string | null | undefined, where: string): FloatDType | undefined {
  if (name === undefined || name === null) return undefined;
  const plain = name.replace(/^torch\./, "");
  if (!Object.hasOwn(mergekitTypes, plain))
    throw new UserError(
      `${where} ${name} is not supported; it must be one of ${Object.keys(mergekitTypes).join(", ")}`,
    );
  return mergekitTypes[plain];
}

/**
 * Parameters that no method of mergekit's has: they are passed over.
 * @throws UserError naming one that is a misspelled one
 */
function strayParameters(
  { file, module, where, lineWhere }: Pick<Compilation, "file" | "module" | "where" | "lineWhere">,
  slices: readonly Slice[],
): string[] {
  const ofSlices = slices.flatMap(({ settings, sources }) => [
    settings,
    ...sources.map(({ parameters }) => parameters),
  ]);
  const given = [file.parameters, module.parameters, ...ofSlices].flatMap((one) => Object.keys(one ?? {}));
  return [...new Set(given)]
    .filter((key) => !knownParameters.has(key))
    .map((key) => {
      const meant = nearest(key, knownParameters);
      const line = `${where}: line ${lineWhere(key, undefined)}: parameter ${key}`;
      if (meant) throw new UserError(`${line} is not supported${meant}`);
      return `${line} is passed over, as mergekit does`;
    });
}

/** A layer of a slice. */
interface PlannedLayer {
  /** Its number in the slice. */
  readonly index: number;
  /** Its number in the result. */
  readonly to: number;
}

function planLayer(compilation: Compilation, slice: Slice, { index, to }: PlannedLayer): PlannedTensor[] {
  const { first, open } = compilation;
  const lead = open(slice.lead.model);
  const [begin, end] = slice.lead.layer_range;
  return [...lead.actual.keys()].flatMap((canonical) => {
    const place = placeInStack(canonical);
    if (place?.index !== begin + index) return [];
    const { stack, rest } = place;
    // A gradient runs over its own stack: a model's decoder may have fewer layers than its encoder.
    const last = Math.min(end, layersIn(lead, stack)) - begin - 1;
    return [
      planTensor(compilation, slice, {
        name: storedAs(first, place, to),
        t: last > 0 ? index / last : 1,
        nameIn: (source) => `${stack}.${source.layer_range[0] + index}.${rest}`,
      }),
    ];
  });
}

interface WantedTensor extends ResultTensor {
  /** What it is called in a source, canonically. */
  nameIn(source: MergekitSource): string;
}

interface SourceTensor extends NamedSource {
  readonly ref: ShapedRef;
}

/** Where a tensor lies in the sources, up to one that is lacking it or has it of another kind. */
function findSources(
  { open }: Compilation,
  { sources }: Slice,
  { nameIn }: WantedTensor,
  own: ShapedRef,
): { readonly found: SourceTensor[]; readonly why?: string } {
  const found: SourceTensor[] = [];
  for (const source of sources) {
    const name = nameIn(source);
    const ref = refOf(open(source.model), name);
    const why = whyUnlike(own, source.model, ref);
    if (!ref || why !== undefined) return { found, why: why ?? "" };
    found.push({ source, name, ref });
  }
  return { found };
}

function planTensor(compilation: Compilation, slice: Slice, tensor: WantedTensor): PlannedTensor {
  const { open, where, seed, method, dtype, kept } = compilation;
  const { name, nameIn } = tensor;
  const home = slice.sources.find(({ model }) => model === slice.base) ?? slice.lead;
  const own = refOf(open(slice.base ?? home.model), nameIn(home));
  if (!own)
    throw new UserError(
      `${where}: ${slice.base ?? home.model} has no tensor "${name}", which the others have`,
    );
  const described = { name, dtype: resultType(own.dtype, dtype), shape: own.shape };
  const isOther = !isFloat(own.dtype);
  const { found, why } = isOther
    ? { found: [], why: `${own.dtype} is not merged` }
    : findSources(compilation, slice, tensor, own);
  if (why !== undefined) {
    kept.push({ name, canonical: nameIn(home), why, isOther });
    return { ...described, copy: own, inputs: [], values: {} };
  }
  const { base, inputs } = rolesOf(found, slice, compilation);
  const values = valuesFor(compilation, slice, tensor, inputs);
  return {
    ...described,
    base: base?.ref,
    inputs: inputs.map(({ ref }) => ref),
    labels: inputs.map(({ source }) => source.model),
    values: resolveValues(
      method,
      { ...values, seed },
      inputs.length,
      (key) => `${where}: ${inFileWords(key)}`,
    ),
  };
}

/** One of our parameters as mergekit's files write it. */
const inFileWords = (key: string): string =>
  snake[key] ?? key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const snake: Readonly<Record<string, string>> = { dareP: "density", rescaled: "rescale" };

/** Which of a tensor's sources is the base, and which are merged. */
function rolesOf(
  refs: readonly SourceTensor[],
  slice: Slice,
  { translation, where, file }: Compilation,
): { base?: SourceTensor | undefined; inputs: readonly SourceTensor[] } {
  if (translation.base === "ignored") return { inputs: refs };
  const base = refs.find(({ source }) => source.model === slice.base);
  const rest = refs.filter((entry) => entry !== base);
  if (!base) {
    if (translation.base === "optional") return { inputs: rest };
    throw new UserError(`${where}: ${file.merge_method} needs a base_model that is one of the models`);
  }
  // slerp's base is where it starts from.
  if (translation.base === "first") return { inputs: [base, ...rest] };
  return { base, inputs: rest };
}
