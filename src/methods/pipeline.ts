import { dareParameters } from "./pruning.js";
import { dare, type DareValues } from "./sparsify.js";
import type { Method, Parameters, Part, Pass, TensorReader, Treatment, Values } from "./types.js";

/** All parameters of a method: its own, and DARE's, which goes in front of any. */
export const parametersOf = ({ parameters }: Method): Parameters => ({ ...dareParameters, ...parameters });

/** What happens to the task vectors, in order, before the method sees them. */
export function treatmentsOf(method: Method, values: Values): readonly Treatment[] {
  const drops = (values as unknown as Partial<DareValues>).dareP?.some((p) => p > 0);
  return [...(drops ? [dare as unknown as Treatment] : []), ...(method.treatments?.(values) ?? [])];
}

/** The passes over all tensors that a method needs first: each with the number of treatments that stand before it. */
export function passesOf(method: Method, values: Values): { readonly stage: number; readonly pass: Pass }[] {
  const stages: { readonly survey?: readonly Pass[] | undefined }[] = [
    ...treatmentsOf(method, values),
    method,
  ];
  return stages.flatMap(({ survey = [] }, stage) => survey.map((pass) => ({ stage, pass })));
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

function each(sign: 1 | -1): (part: Part) => void {
  return ({ base, inputs }) => {
    for (const x of inputs) for (let i = 0; i < x.length; i++) x[i] = x[i]! + sign * base[i]!;
  };
}

/**
 * A tensor as stage `upTo` of a method sees it: its task vectors, treated by the stages before; entries
 * again where that is what the method itself works on.
 * @param reader hands out the models' own entries
 * @param found what each stage's passes came to
 */
export function readerFor(
  method: Method,
  values: Values,
  reader: TensorReader,
  found: readonly unknown[],
  upTo = Infinity,
): TensorReader {
  const treatments = treatmentsOf(method, values);
  const last = upTo >= treatments.length;
  if (treatments.length === 0) return method.works === "values" ? reader : mapParts(reader, () => each(-1));
  let treated = mapParts(reader, () => each(-1));
  for (const [stage, treatment] of treatments.slice(0, upTo).entries())
    treated = mapParts(treated, treatment.treat(treated, values, found[stage]));
  return last && method.works === "values" ? mapParts(treated, () => each(1)) : treated;
}
