/** SuperMerge's tables 1 to 4 and 6; 5 is in supermerge-cost.ts. */
import { averageRanks } from "../report/table.js";
import type { Candidate } from "../compare/candidates.js";
import { bestOf, claim } from "./claims.js";
import {
  behindDare,
  given,
  onTasks,
  pretrained,
  rateOf,
  resultsTable,
  searchedOver,
  superMergeWith,
  unitLambdas,
} from "./shared.js";
import type { Experiment, Lab, Outcome, Produced } from "./types.js";

type Candidates = readonly (string | Candidate)[];

/**
 * SuperMerge by what the paper says alone: all validation examples are trained on, the last step is kept, and every
 * coefficient starts from 0.3 (the paper names no start).
 */
const plainSuperMerge = superMergeWith("supermerge, all examples", { holdout: 0, init: 0.3 });

const languageMethods: Candidates = [
  "task-arithmetic",
  behindDare("dare", "task-arithmetic"),
  searchedOver("ties", "ties", unitLambdas),
  behindDare("dare-ties", "ties", undefined, unitLambdas),
  // TIES's own paper searches λ from 0.8 to 2.5.
  given("ties, its own search", "ties"),
  "supermerge",
  plainSuperMerge,
  "hierarchical",
];
const visionMethods: Candidates = [
  "task-arithmetic",
  searchedOver("ties", "ties", unitLambdas),
  "adamerging++",
  "supermerge",
  plainSuperMerge,
  "hierarchical",
];

/** What the search found for DARE's p; nothing where no candidate searches it. */
function ratesNote(outcome: Outcome, candidates: Candidates, lab: Lab): string {
  const found: string[] = [];
  for (const one of candidates)
    if (typeof one !== "string" && "grid" in one && one.grid && "dareP" in one.grid)
      found.push(`${rateOf(outcome, one.name, lab).join(", ")} (${one.name})`);
  if (found.length === 0) return "";
  const bySeed = lab.seeds.length > 1 ? ", seed by seed" : "";
  return `DARE's p as the validation examples chose it${bySeed}: ${found.join("; ")}`;
}

async function inDomain(lab: Lab, candidates: Candidates): Promise<Produced> {
  const outcome = await lab.compare("in-domain", candidates);
  const { rows: merged } = outcome;
  const individual = merged.filter(({ method }) => method === "individual");
  const rows = [
    ...individual,
    ...(await lab.multitask()),
    ...merged.filter((row) => !individual.includes(row)),
  ];
  return {
    rows,
    tables: [resultsTable("results", rows, lab, ratesNote(outcome, candidates, lab))],
    figures: [],
  };
}

async function outOfDomain(lab: Lab, candidates: Candidates): Promise<Produced> {
  const outcome = await lab.compare("out-of-domain", [pretrained, ...candidates], { heldOut: lab.heldOut });
  const rows = outcome.rows.filter(
    ({ method, task }) => method !== "individual" && (method !== "pretrained" || lab.heldOut.includes(task)),
  );
  const merged = `tasks that have no part in the merge of ${lab.tasks.join(", ")}`;
  const note = [merged, ratesNote(outcome, candidates, lab)].filter(Boolean).join("; ");
  const same = "the same models on the tasks that were merged";
  return {
    rows,
    figures: [],
    tables: [
      resultsTable("held-out", onTasks(rows, lab.heldOut), lab, note),
      resultsTable("in-domain", onTasks(rows, lab.tasks), lab, same),
    ],
  };
}

const hierarchicalIsClose = claim(
  "The hierarchical merge is within two points of SuperMerge's average",
  ({ average }, { tasks }) => Math.abs(average("supermerge", tasks) - average("hierarchical", tasks)) <= 0.02,
);

/** That SuperMerge's rank is better than others'. */
const bestRank = (others: readonly string[]) =>
  claim("SuperMerge's average rank is better than theirs, without a tie", ({ rows }, { tasks }) => {
    const methods = ["supermerge", "hierarchical", ...others];
    const ranks = averageRanks(
      rows.filter(({ method }) => methods.includes(method)),
      tasks,
    );
    const mine = ranks.get("supermerge");
    if (mine === undefined) return undefined;
    // What was not ranked is behind.
    return others.every((other) => (ranks.get(other) ?? Infinity) > mine);
  });

const heldOutTasks = ({ heldOut }: Lab) => heldOut;

type TableOptions = Pick<Experiment, "id" | "what" | "minutes" | "models"> & {
  readonly candidates: Candidates;
};

const inDomainTable = (
  { candidates, models = 2, ...rest }: TableOptions,
  others: readonly string[],
): Experiment => ({
  ...rest,
  models,
  run: (lab) => inDomain(lab, candidates),
  claims: [
    bestOf(`SuperMerge's average is above those of ${others.join(", ")}`, "supermerge", others),
    bestRank(others),
    hierarchicalIsClose,
  ],
});
const outOfDomainTable = (
  { candidates, models = 2, ...rest }: TableOptions,
  claims: Experiment["claims"],
): Experiment => ({
  ...rest,
  models,
  heldOut: true,
  run: (lab) => outOfDomain(lab, candidates),
  claims,
});

/** Table 4: with the gate and without. */
async function gateTables(lab: Lab): Promise<Produced> {
  const { rows } = await lab.compare(
    "gate",
    [superMergeWith("with tanh", { gate: "tanh" }), superMergeWith("without tanh", { gate: "identity" })],
    { heldOut: lab.heldOut },
  );
  const ours = rows.filter(({ method }) => method.includes("tanh"));
  return {
    rows: ours,
    figures: [],
    tables: [
      resultsTable("in-domain", onTasks(ours, lab.tasks), lab),
      resultsTable("out-of-domain", onTasks(ours, lab.heldOut), lab),
    ],
  };
}

const languageOthers = ["task-arithmetic", "dare", "ties", "dare-ties"];

export const table1 = inDomainTable(
  {
    id: "supermerge/table-1",
    what: "in-domain, language tasks: every method, accuracy and rank",
    minutes: [2, 16],
    candidates: languageMethods,
  },
  languageOthers,
);

export const table2 = outOfDomainTable(
  {
    id: "supermerge/table-2",
    what: "out-of-domain, language tasks: tasks that have no part in the merge",
    minutes: [2, 10],
    candidates: languageMethods,
  },
  [
    bestOf(
      "SuperMerge's average on tasks held out is above task arithmetic's and TIES's, with DARE and without",
      "supermerge",
      languageOthers,
      heldOutTasks,
    ),
    claim("DARE with TIES does worst on tasks held out", ({ average }, { heldOut }) =>
      ["task-arithmetic", "dare", "ties", "supermerge", "hierarchical"].every(
        (name) => average("dare-ties", heldOut) < average(name, heldOut),
      ),
    ),
  ],
);

export const table3 = inDomainTable(
  {
    id: "supermerge/table-3",
    what: "in-domain, image tasks (AdaMerging++ beside it)",
    minutes: [10, 40],
    models: 6,
    candidates: visionMethods,
  },
  ["task-arithmetic", "ties", "adamerging++"],
);

export const table4: Experiment = {
  id: "supermerge/table-4",
  what: "with tanh and without, in-domain and out-of-domain",
  minutes: [2, 6],
  heldOut: true,
  claims: [
    bestOf("In-domain, tanh is better than no gate", "with tanh", ["without tanh"]),
    bestOf("Out-of-domain, tanh is better than no gate", "with tanh", ["without tanh"], heldOutTasks),
  ],
  run: gateTables,
};

export const table6 = outOfDomainTable(
  {
    id: "supermerge/table-6",
    what: "out-of-domain, image tasks",
    minutes: [9, 35],
    models: 6,
    candidates: visionMethods,
  },
  ["task-arithmetic", "ties"].map((name) =>
    bestOf(
      `On image tasks held out, ${name} is above SuperMerge and AdaMerging++ (which learned for others)`,
      name,
      ["supermerge", "adamerging++"],
      heldOutTasks,
    ),
  ),
);
