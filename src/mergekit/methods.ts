/** mergekit's methods in terms of ours: names, parameters with mergekit's own defaults, and what its base is. */
import { at } from "../at.js";
import type { MergekitScalar } from "./file.js";

/** A parameter without a default must be given. */
type Defaults = Readonly<Record<string, MergekitScalar | undefined>>;
/** Parameters of the whole merge. */
type SharedValues<S extends Defaults> = { readonly [K in keyof S]: MergekitScalar };
/** Parameters of each model: one a model. */
type EachValues<E extends Defaults> = { readonly [K in keyof E]: readonly MergekitScalar[] };

export interface Translation<S extends Defaults = Defaults, E extends Defaults = Defaults> {
  readonly method: string;
  /**
   * `base`: task vectors are taken against it; `first`: it is the first of the models; `ignored`: it is
   * one of them.
   */
  readonly base: "base" | "optional" | "first" | "ignored";
  readonly shared: S;
  readonly each: E;
  /** Our parameters from its. */
  values(shared: SharedValues<S>, each: EachValues<E>): Record<string, unknown>;
}

/** A method whose parameters are known where it is written, and forgotten where it is listed. */
const translation = <S extends Defaults, E extends Defaults>(written: Translation<S, E>): Translation =>
  written;

const arithmetic = (normalize: boolean, rescale = false) => ({
  normalize,
  lambda: 1,
  rescale,
  int8_mask: false,
});
const weighted = { weight: undefined, density: 1 };

const sums = (
  { normalize, lambda }: { readonly normalize: MergekitScalar; readonly lambda: MergekitScalar },
  { weight }: { readonly weight: readonly MergekitScalar[] },
) => ({ normalize, lambda, weight });

/** DARE in front of a method: the chance of an entry to be dropped, and what is done with the rest. */
const dropped = (density: readonly MergekitScalar[], rescale: MergekitScalar) => ({
  dareP: density.map((d) => 1 - Number(d)),
  rescale: rescale ? "l1" : "none",
});

const breadcrumbs = (method: string) =>
  translation({
    method,
    base: "base",
    shared: arithmetic(false),
    each: { ...weighted, gamma: 0.01 },
    values: (shared, each) => ({
      ...sums(shared, each),
      density: each.density,
      gamma: each.gamma,
      rescaled: shared.rescale,
    }),
  });

const della = (method: string, normalize: boolean) =>
  translation({
    method,
    base: "base",
    shared: arithmetic(normalize, true),
    each: { ...weighted, epsilon: 0.15 },
    values: (shared, each) => ({
      ...sums(shared, each),
      density: each.density,
      epsilon: each.epsilon,
      rescaled: shared.rescale,
    }),
  });

export const translations: Readonly<Record<string, Translation>> = {
  linear: translation({
    method: "linear",
    base: "ignored",
    shared: { normalize: true },
    each: { weight: undefined },
    values: ({ normalize }, { weight }) => ({ normalize, weight }),
  }),
  slerp: translation({
    method: "slerp",
    base: "first",
    shared: { t: undefined },
    each: {},
    values: ({ t }) => ({ t }),
  }),
  nuslerp: translation({
    method: "nuslerp",
    base: "optional",
    shared: { nuslerp_row_wise: false, nuslerp_flatten: true },
    each: { weight: undefined },
    values({ nuslerp_row_wise: rows, nuslerp_flatten: flat }, { weight }) {
      if (flat) return { weight, along: "tensor" };
      // Its "row-wise" runs down the first axis.
      return { weight, along: rows ? "column" : "row" };
    },
  }),
  karcher: translation({
    method: "karcher",
    base: "ignored",
    shared: { max_iter: 10, tol: 1e-5 },
    each: {},
    values: ({ max_iter, tol }) => ({ maxIter: max_iter, tol }),
  }),
  model_stock: translation({
    method: "model-stock",
    base: "base",
    shared: { filter_wise: false },
    each: {},
    values: ({ filter_wise }) => ({ filterWise: filter_wise }),
  }),
  sce: translation({
    method: "sce",
    base: "base",
    shared: { select_topk: 1, int8_mask: false },
    each: {},
    values: ({ select_topk }) => ({ selectTopk: select_topk }),
  }),
  passthrough: translation({
    method: "passthrough",
    base: "ignored",
    shared: {},
    each: { scale: 1 },
    values: (_, { scale }) => ({ scale: at(scale, 0) }),
  }),
  nearswap: translation({
    method: "nearswap",
    base: "base",
    shared: { t: undefined },
    each: {},
    values: ({ t }) => ({ t }),
  }),
  multislerp: translation({
    method: "multislerp",
    base: "optional",
    shared: { normalize_weights: true, eps: 1e-8 },
    each: { weight: undefined },
    values: ({ normalize_weights: normalizeWeights, eps }, { weight }) => ({ normalizeWeights, eps, weight }),
  }),
  ram: translation({
    method: "ram",
    base: "base",
    shared: { epsilon: 1e-5 },
    each: {},
    values: ({ epsilon }) => ({ epsilon }),
  }),
  ramplus_tl: translation({
    method: "ramplus-tl",
    base: "base",
    shared: { r: 0.1, alpha: 0.2, epsilon: 1e-5 },
    each: {},
    values: ({ r, alpha, epsilon }) => ({ r, alpha, epsilon }),
  }),
  arcee_fusion: translation({
    method: "arcee-fusion",
    base: "base",
    shared: {},
    each: {},
    values: () => ({}),
  }),
  task_arithmetic: translation({
    method: "task-arithmetic",
    base: "base",
    shared: arithmetic(false),
    each: weighted,
    values: sums,
  }),
  ties: translation({
    method: "ties",
    base: "base",
    shared: arithmetic(true),
    each: weighted,
    values: (shared, each) => ({
      ...sums(shared, each),
      variant: "mergekit",
      density: each.density,
      rescaled: shared.rescale,
    }),
  }),
  dare_ties: translation({
    method: "ties",
    base: "base",
    shared: arithmetic(false, true),
    each: weighted,
    values: (shared, each) => ({
      ...sums(shared, each),
      variant: "mergekit",
      density: 1,
      ...dropped(each.density, shared.rescale),
    }),
  }),
  dare_linear: translation({
    method: "dare",
    base: "base",
    shared: arithmetic(false, true),
    each: weighted,
    values: (shared, each) => ({ ...sums(shared, each), ...dropped(each.density, shared.rescale) }),
  }),
  breadcrumbs: breadcrumbs("breadcrumbs"),
  breadcrumbs_ties: breadcrumbs("breadcrumbs-ties"),
  della: della("della", true),
  della_linear: della("della-linear", false),
};

/** Every parameter that mergekit's methods have: one that is not the chosen method's is passed over, as there. */
export const knownParameters = new Set(
  Object.values(translations).flatMap(({ shared, each }) => [...Object.keys(shared), ...Object.keys(each)]),
);
