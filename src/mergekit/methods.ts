/** mergekit's methods in terms of ours: names, parameters with mergekit's own defaults, and what its base is. */

type Scalar = number | boolean | string;
/** A parameter without a default must be given. */
type Defaults = Readonly<Record<string, Scalar | undefined>>;

export interface Translation {
  readonly method: string;
  /**
   * `base`: task vectors are taken against it; `first`: it is the first of the models; `ignored`: it is
   * one of them.
   */
  readonly base: "base" | "optional" | "first" | "ignored";
  readonly shared: Defaults;
  readonly each: Defaults;
  /** Our parameters from its: those of each model as lists. */
  values(
    shared: Readonly<Record<string, Scalar>>,
    each: Readonly<Record<string, readonly Scalar[]>>,
  ): Record<string, unknown>;
}

const arithmetic = (normalize: boolean) => ({ normalize, lambda: 1, rescale: false, int8_mask: false });
const sums = (
  { normalize, lambda }: Readonly<Record<string, Scalar>>,
  { weight }: Readonly<Record<string, readonly Scalar[]>>,
) => ({ normalize, lambda, weight });
const dropped = (density: readonly Scalar[], rescale: Scalar) => ({
  dareP: density.map((d) => 1 - Number(d)),
  rescale: rescale ? "l1" : "none",
});
const weighted = { weight: undefined, density: 1 };

export const translations: Readonly<Record<string, Translation>> = {
  linear: {
    method: "linear",
    base: "ignored",
    shared: { normalize: true },
    each: { weight: undefined },
    values: ({ normalize }, { weight }) => ({ normalize, weight }),
  },
  slerp: { method: "slerp", base: "first", shared: { t: undefined }, each: {}, values: ({ t }) => ({ t }) },
  nuslerp: {
    method: "nuslerp",
    base: "optional",
    shared: { nuslerp_row_wise: false, nuslerp_flatten: true },
    each: { weight: undefined },
    // Its "row-wise" runs down the first axis.
    values: ({ nuslerp_row_wise: rows, nuslerp_flatten: flat }, { weight }) => {
      const slices = rows ? "column" : "row";
      return { weight, along: flat ? "tensor" : slices };
    },
  },
  karcher: {
    method: "karcher",
    base: "ignored",
    shared: { max_iter: 10, tol: 1e-5 },
    each: {},
    values: ({ max_iter, tol }) => ({ maxIter: max_iter, tol }),
  },
  model_stock: {
    method: "model-stock",
    base: "base",
    shared: { filter_wise: false },
    each: {},
    values: ({ filter_wise }) => ({ filterWise: filter_wise }),
  },
  sce: {
    method: "sce",
    base: "base",
    shared: { select_topk: 1, int8_mask: false },
    each: {},
    values: ({ select_topk }) => ({ selectTopk: select_topk }),
  },
  passthrough: {
    method: "passthrough",
    base: "ignored",
    shared: {},
    each: { scale: 1 },
    values: (_, { scale }) => ({ scale: scale![0] }),
  },
  nearswap: {
    method: "nearswap",
    base: "base",
    shared: { t: undefined },
    each: {},
    values: ({ t }) => ({ t }),
  },
  task_arithmetic: {
    method: "task-arithmetic",
    base: "base",
    shared: arithmetic(false),
    each: weighted,
    values: sums,
  },
  ties: {
    method: "ties",
    base: "base",
    shared: arithmetic(true),
    each: weighted,
    values: (shared, each) => ({
      ...sums(shared, each),
      variant: "mergekit",
      density: each["density"],
      rescaled: shared["rescale"],
    }),
  },
  dare_ties: {
    method: "ties",
    base: "base",
    shared: { ...arithmetic(false), rescale: true },
    each: weighted,
    values: (shared, each) => ({
      ...sums(shared, each),
      variant: "mergekit",
      density: 1,
      ...dropped(each["density"]!, shared["rescale"]!),
    }),
  },
  dare_linear: {
    method: "dare",
    base: "base",
    shared: { ...arithmetic(false), rescale: true },
    each: weighted,
    values: (shared, each) => ({ ...sums(shared, each), ...dropped(each["density"]!, shared["rescale"]!) }),
  },
  ...Object.fromEntries(
    (["breadcrumbs", "breadcrumbs_ties"] as const).map((name) => [
      name,
      {
        method: name.replace("_", "-"),
        base: "base",
        shared: arithmetic(false),
        each: { ...weighted, gamma: 0.01 },
        values: (shared, each) => ({
          ...sums(shared, each),
          density: each["density"],
          gamma: each["gamma"],
          rescaled: shared["rescale"],
        }),
      } satisfies Translation,
    ]),
  ),
  ...Object.fromEntries(
    (["della", "della_linear"] as const).map((name) => [
      name,
      {
        method: name.replace("_", "-"),
        base: "base",
        shared: { ...arithmetic(name === "della"), rescale: true },
        each: { ...weighted, epsilon: 0.15 },
        values: (shared, each) => ({
          ...sums(shared, each),
          density: each["density"],
          epsilon: each["epsilon"],
          rescaled: shared["rescale"],
        }),
      } satisfies Translation,
    ]),
  ),
};

/** Every parameter that mergekit's methods have: one that is not the chosen method's is passed over, as there. */
export const knownParameters = new Set(
  Object.values(translations).flatMap(({ shared, each }) => [...Object.keys(shared), ...Object.keys(each)]),
);
