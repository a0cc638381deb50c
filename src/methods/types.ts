/**
 * What a merging method is: a function of one tensor of the base and of every input, on the host, that
 * never sees a model. It looks at the tensor as often as it must (part by part), then merges it part by
 * part, so that no tensor is ever held whole but where a method needs it whole. See index.ts for the
 * list.
 */

/**
 * Some entries of a tensor, whole rows of it. The arrays are the reader's own: whoever gets a part may
 * write into them.
 */
export interface Part {
  /** What is infinite in all models alike, by design, by its place in the part: zeros stand there. */
  readonly infinite?: ReadonlyMap<number, number> | undefined;
  /** Number of the first entry in the tensor. */
  readonly start: number;
  /** The base's entries; of a merge without a base, zeros. */
  readonly base: Float32Array;
  /** Each input's entries, or its task vector's: as the method `works`. */
  readonly inputs: readonly Float32Array[];
  /** Each input's statistic for these entries, where the method needs `fisher`. */
  readonly statistics?: readonly Float32Array[] | undefined;
}

/** One tensor of all models. */
export interface TensorReader {
  readonly name: string;
  /** The tensor as rows of its last axis; a vector is one row. */
  readonly rows: number;
  readonly width: number;
  /** What the inputs are called: seeds follow names, not places, so their order does not matter. */
  readonly labels: readonly string[];
  /** One part after the other, from the start; a part is gone when the next is asked for. */
  parts(): Iterable<Part>;
  /** An input's square statistic, [n, n] in rows, where the method needs `gram` and the tensor has one. */
  gram?(input: number): Float32Array | undefined;
  /** How many axes the tensor has; of a matrix, where it is not said, 2. */
  readonly axes?: number | undefined;
  /** Stored [in, out] and not [out, in]. */
  readonly transposed?: boolean | undefined;
}

/** Entries of a tensor. */
export const entryCount = ({ rows, width }: Pick<TensorReader, "rows" | "width">): number => rows * width;

interface Described {
  readonly about: string;
}
export interface NumberParameter extends Described {
  readonly kind: "number";
  readonly default: number;
  readonly least?: number | undefined;
  readonly most?: number | undefined;
}
/** One number for each input; a single number stands for all. */
export interface NumbersParameter extends Described {
  readonly kind: "numbers";
  readonly default: number;
  readonly least?: number | undefined;
  readonly most?: number | undefined;
}
export interface FlagParameter extends Described {
  readonly kind: "flag";
  readonly default: boolean;
}
export interface ChoiceParameter<C extends string = string> extends Described {
  readonly kind: "choice";
  readonly of: readonly C[];
  readonly default: C;
}
export type Parameter = NumberParameter | NumbersParameter | FlagParameter | ChoiceParameter;
export type Parameters = Readonly<Record<string, Parameter>>;

type ValueOf<P> = P extends NumberParameter
  ? number
  : P extends NumbersParameter
    ? readonly number[]
    : P extends FlagParameter
      ? boolean
      : P extends ChoiceParameter<infer C>
        ? C
        : never;
export type ParameterValues<P extends Parameters = Parameters> = { readonly [K in keyof P]: ValueOf<P[K]> };

/** What parameters of a method are made by. */
export const parameter = {
  number: (value: number, about: string, least?: number, most?: number): NumberParameter => ({
    kind: "number",
    default: value,
    about,
    least,
    most,
  }),
  numbers: (value: number, about: string, least?: number, most?: number): NumbersParameter => ({
    kind: "numbers",
    default: value,
    about,
    least,
    most,
  }),
  flag: (value: boolean, about: string): FlagParameter => ({ kind: "flag", default: value, about }),
  choice: <const C extends string>(
    value: NoInfer<C>,
    of: readonly C[],
    about: string,
  ): ChoiceParameter<C> => ({ kind: "choice", default: value, of, about }),
};

/**
 * A reading of all tensors before any is merged, for what is global. Tensors are shared out among
 * threads: every thread has a state of its own, plain data, and what `join` makes of the states must
 * not depend on which thread saw what.
 */
export interface SurveyPass<V = ParameterValues, State = unknown, Found = unknown, Before = unknown> {
  start(inputs: number): State;
  /** @param before what the pass before this one came to */
  visit(state: State, tensor: TensorReader, values: V, before: Before): void;
  join(states: readonly State[], values: V, before: Before): Found;
}

/** Passes one after the other; what the last comes to is handed on. */
export type Survey<V, Found> = readonly [...SurveyPass<V>[], SurveyPass<V, unknown, Found>];

/** Changes task vectors before a method sees them, in place. */
export interface Treatment<V = ParameterValues, Found = unknown> {
  readonly survey?: Survey<V, Found> | undefined;
  /**
   * Looks at a tensor and says how its parts are treated. What it returns is called once for each going
   * over of the parts: they come in order, so a treatment may count as it goes.
   */
  treat(tensor: TensorReader, values: V, found: Found): () => (part: Part) => void;
}

/** Merges a part: all entries of `out` are written. */
export type MergePart = (part: Part, out: Float32Array) => void;

/** Makes a result for each input, of a part: all entries of all of them are written. */
export type EachPart = (part: Part, outs: readonly Float32Array[]) => void;

export interface Method {
  readonly name: string;
  /** One line for the help, with where it comes from. */
  readonly about: string;
  readonly parameters: Parameters;
  /** What `inputs` hold: the models' own entries, or their task vectors (entry minus base). */
  readonly works: "values" | "deltas";
  /** How many models it takes (default: from 1 on). */
  readonly inputs?: readonly [least: number, most: number] | undefined;
  /** Whether a base must be there (default: it must). */
  readonly baseless?: boolean | undefined;
  /** Statistics of data that it wants handed in. */
  readonly needs?: "fisher" | "gram" | undefined;
  /**
   * Every entry of the result is one sum of the inputs' entries, with weights that no entry has a say
   * in: it holds for factors too.
   */
  readonly linear?: boolean | undefined;
  /** The result is base + λ · (something without λ): a search over `lambda` needs one merge alone. */
  readonly scaled?: boolean | undefined;
  /** What a search tries: parameter → values. */
  readonly grid?: Readonly<Record<string, readonly (number | string)[]>> | undefined;
  /** Parameters that these values leave unread: who gives one of them is told. */
  unread?(values: ParameterValues): readonly string[];
  /** Whether of models that are all the same something else is made (default: it is not). */
  changesEqual?(values: ParameterValues): boolean;
  /** What happens to the task vectors first. */
  treatments?(values: ParameterValues): readonly Treatment[];
  readonly survey?: Survey<ParameterValues, unknown> | undefined;
  /** Looks at a tensor and says how a part of it is merged. */
  merge(tensor: TensorReader, values: ParameterValues, found: unknown): MergePart;
  /** The same where each input has a result of its own: all of them at once. */
  mergeEach?(tensor: TensorReader, values: ParameterValues, found: unknown): EachPart;
}

type Defined<P extends Parameters, Found> = Omit<
  Method,
  "parameters" | "survey" | "merge" | "mergeEach" | "treatments" | "unread" | "changesEqual"
> & {
  readonly parameters: P;
  unread?(values: ParameterValues<P>): readonly string[];
  changesEqual?(values: ParameterValues<P>): boolean;
  treatments?(values: ParameterValues<P>): readonly Treatment<ParameterValues<P>>[];
  readonly survey?: Survey<ParameterValues<P>, Found>;
  merge(tensor: TensorReader, values: ParameterValues<P>, found: Found): MergePart;
  mergeEach?(tensor: TensorReader, values: ParameterValues<P>, found: Found): EachPart;
};

/**
 * A method with the types of its parameters, and of what its survey finds, known where it is written and
 * forgotten where it is listed.
 */
export const method = <const P extends Parameters, Found = unknown>(defined: Defined<P, Found>): Method =>
  defined;
