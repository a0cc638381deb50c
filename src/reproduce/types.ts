import type { Spec } from "vega";
import type { ResultRow } from "../report/rows.js";
import type { TextTable } from "../report/table.js";
import type { Timed } from "../report/comparison.js";
import type { Candidate } from "../compare/candidates.js";

/** What candidates came to, at every seed. */
export interface Outcome {
  readonly rows: readonly ResultRow[];
  readonly times: readonly Timed[];
  /** The parameters that a candidate was merged with: given, found or customary. */
  values(candidate: string, seed: number): Readonly<Record<string, unknown>>;
  /** Where a candidate's model stands, where it was kept. */
  folder(candidate: string, seed: number): string;
}

export interface CompareMore {
  readonly tasks?: readonly string[];
  readonly heldOut?: readonly string[];
  readonly seeds?: readonly number[];
  /** Keeps the models, and what stands beside them. */
  readonly keep?: boolean;
}

/** One tensor of the family, as float32. */
export interface TensorDeltas {
  readonly name: string;
  readonly base: Float32Array;
  /** Each expert's task vector. */
  readonly deltas: readonly Float32Array[];
}

/** How an experiment fine-tunes models of its own. */
export interface FinetuneSettings {
  readonly models: number;
  readonly epochs: number;
  readonly lr: number;
  /** Training examples that are used; all without. */
  readonly most?: number | undefined;
}

/** What an experiment works with. */
export interface Lab {
  /** What the family is called. */
  readonly name: string;
  /** All families that are compared, in the order given; of one family, itself. */
  readonly families: readonly Lab[];
  readonly tasks: readonly string[];
  /** Tasks that have no part in the merges. */
  readonly heldOut: readonly string[];
  readonly seeds: readonly number[];
  readonly valPerTask: number;
  readonly synthetic: boolean;
  /**
   * Runs candidates at every seed. What is done is not done again. @param part says what it is, to
   * whoever watches
   */
  compare(part: string, candidates: readonly (string | Candidate)[], more?: CompareMore): Promise<Outcome>;
  /**
   * Scores of one model fine-tuned on all tasks (`finetune --multitask`), where one stands in
   * multitask/ beside the family's base.
   */
  multitask(): Promise<readonly ResultRow[]>;
  /**
   * Scores of models of one task that were fine-tuned alike but for the order of its examples, and of
   * their merges, at every seed.
   */
  orders(task: string, merges: readonly Candidate[]): Promise<readonly ResultRow[]>;
  /** Every tensor that the models share, one after the other: none is held. */
  tensors(): AsyncIterable<TensorDeltas>;
  /** What a merge of these experts costs, from the models and the data. */
  cost(): Promise<Cost>;
}

export interface Cost {
  readonly parameters: number;
  readonly coefficients: number;
  readonly layers: number;
  readonly experts: number;
  /** Bytes by the paper's equation 6: all experts at once, and two at a time. */
  readonly equation6: { readonly flat: number; readonly pairwise: number; readonly fineTuning: number };
  /** Bytes of device memory that a step is planned to take here, with the task vectors where they were put. */
  readonly planned: number;
  readonly validation: TokenCount;
  readonly train: TokenCount | undefined;
}

/** How many examples, and tokens in them. */
export interface TokenCount {
  readonly examples: number;
  readonly tokens: number;
}

export interface Figure {
  readonly name: string;
  readonly title: string;
  readonly spec: Spec;
}
export interface CaptionedTable {
  readonly name: string;
  readonly caption: string;
  readonly table: TextTable;
}

/** What an experiment found. */
export interface Produced {
  readonly rows: readonly ResultRow[];
  readonly tables: readonly CaptionedTable[];
  readonly figures: readonly Figure[];
  /** Numbers that are compared with what is expected, beside the averages of its methods. */
  readonly numbers?: Readonly<Record<string, number>>;
  /** The seeds that were run, where not all were. */
  readonly seeds?: readonly number[];
}

/** How sure a claim is that was measured on examples (worlds.ts). */
export interface Sureness {
  /** The part of the worlds in which it holds. */
  readonly share: number;
  /** Test examples of all tasks together. */
  readonly examples: number;
}

/** Something that the paper says, and whether what was found says so too; undefined where it cannot be told. */
export interface Claim {
  readonly text: string;
  holds(found: Produced, lab: Lab): boolean | undefined;
  /** Undefined where it is of other numbers than averages, or the examples are not known. */
  sureness(found: Produced, lab: Lab): Sureness | undefined;
}

/** A table or figure of a paper. */
export interface Experiment {
  /** paper/name; its folder in experiments/ is called paper-name. */
  readonly id: string;
  readonly what: string;
  /** Minutes on two cores: on the family that ships, and on one of 20 million parameters. */
  readonly minutes: readonly [small: number, real: number];
  /**
   * Models of the family's size that lie on disk while it runs (default: 2, the one written and the one
   * that is tried).
   */
  readonly models?: number;
  /** It tests tasks that have no part in the merge. */
  readonly heldOut?: boolean;
  /** It compares so many families, or more. */
  readonly families?: number;
  /** It fine-tunes models of its own. */
  readonly trains?: boolean;
  readonly claims: readonly Claim[];
  run(lab: Lab): Promise<Produced>;
}
