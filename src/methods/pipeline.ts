import { addScaled } from "./arrays.js";
import { behindMerge, linesParameters, linesTreatment } from "./lines.js";
import { dareParameters } from "./pruning.js";
import { dareTreatment, rescales } from "./sparsify.js";
import { at } from "../at.js";
import type {
  EachPart,
  MergePart,
  Method,
  Parameters,
  ParameterValues,
  Part,
  SurveyPass,
  TensorReader,
  Treatment,
} from "./types.js";

/** All parameters of a method: its own, and DARE's and LiNeS's, which go with any. */
export const acceptedParameters = ({ parameters }: Method): Parameters => ({
  ...dareParameters,
  ...linesParameters,
  ...parameters,
});

/** DARE, where values ask for it; else nothing. */
function dareOf({ dareP, rescale, seed }: ParameterValues): Treatment[] {
  const how = rescales.find((name) => name === rescale);
  if (typeof dareP !== "object" || !how || typeof seed !== "number") return [];
  if (!dareP.some((p) => p > 0)) return [];
  return [dareTreatment({ dareP, rescale: how, seed })];
}

/** How much more the last block counts, where values ask for it (LiNeS). */
const linesIn = ({ lines }: ParameterValues): number => (typeof lines === "number" ? lines : 1);
const linesOf = (values: ParameterValues): Treatment[] => (linesIn(values) === 1 ? [] : [linesTreatment]);

/** Whether task vectors are changed, whatever the method is. */
export const isTreated = (values: ParameterValues): boolean =>
  dareOf(values).length + linesOf(values).length > 0;

/** What happens to the task vectors, in order, before the method sees them; and LiNeS's pass, which changes nothing. */
export const treatmentsOf = (method: Method, values: ParameterValues): readonly Treatment[] => [
  ...dareOf(values),
  ...(method.treatments?.(values) ?? []),
  ...linesOf(values),
];

/** The passes over all tensors that a method needs first: each with the number of treatments that stand before it. */
export function surveyPasses(
  method: Method,
  values: ParameterValues,
): { readonly stage: number; readonly pass: SurveyPass }[] {
  return [...treatmentsOf(method, values), method].flatMap(({ survey = [] }, stage) =>
    survey.map((pass) => ({ stage, pass })),
  );
}

function mapParts(reader: TensorReader, change: () => (part: Part) => void): TensorReader {
  return {
    ...reader,
    *parts() {
      const apply = change();
      for (const part of reader.parts()) {
        apply(part);
        yield part;
      }
    },
  };
}

/** Adds the base to every input, or takes it away. */
const addBase =
  (sign: 1 | -1) =>
  ({ base, inputs }: Part): void => {
    for (const x of inputs) addScaled(x, base, sign);
  };

/** How far a method has got with its passes. */
export interface Surveyed {
  /** What each stage's passes came to. */
  readonly found: readonly unknown[];
  /** The stage that a tensor is read for (default: the merge itself). */
  readonly upTo?: number | undefined;
}

/**
 * A tensor as stage `upTo` of a method sees it: its task vectors, treated by the stages before; entries
 * again where that is what the method itself works on.
 * @param reader hands out the models' own entries
 */
export function readerFor(
  method: Method,
  values: ParameterValues,
  reader: TensorReader,
  { found, upTo = Infinity }: Surveyed,
): TensorReader {
  const treatments = treatmentsOf(method, values);
  const last = upTo >= treatments.length;
  const asValues = method.works === "values";
  if (treatments.length === 0 && asValues) return reader;
  let treated = mapParts(reader, () => addBase(-1));
  for (const [stage, treatment] of treatments.slice(0, upTo).entries())
    treated = mapParts(treated, treatment.treat(treated, values, found[stage]));
  if (last && asValues) return mapParts(treated, () => addBase(1));
  return treated;
}

/**
 * How parts of a tensor are merged: by the method, and LiNeS behind it.
 * @param tensor as the method sees it ({@link readerFor})
 * @param results how many: one, or one for each input where the method makes them so
 */
export function mergeFor(
  method: Method,
  values: ParameterValues,
  tensor: TensorReader,
  { found, results = 1 }: Pick<Surveyed, "found"> & { readonly results?: number },
): EachPart {
  const treatments = treatmentsOf(method, values).length;
  const own = found[treatments];
  const each = results > 1 ? method.mergeEach?.(tensor, values, own) : undefined;
  const merge = each ?? onlyOne(method.merge(tensor, values, own));
  return behindMerge(merge, tensor.name, linesIn(values), found[treatments - 1]);
}

/** A merge of all inputs, whose results are one. */
const onlyOne =
  (merge: MergePart): EachPart =>
  (part, outs) =>
    merge(part, at(outs, 0));
