import { size } from "../report/memory.js";
import { averageRanks } from "../report/table.js";
import { coefficients } from "./coefficients.js";
import { average, behindDare, bestOf, onTasks, pretrained, rateOf, tableOf, trained } from "./shared.js";
import { lambdas, lambdaSweep, swept, unlike, violins } from "./supermerge-figures.js";
import type { Experiment, Lab, Outcome, Produced } from "./types.js";

const languageMethods = [
  "task-arithmetic",
  behindDare("dare", "task-arithmetic"),
  "ties",
  behindDare("dare-ties", "ties"),
  "supermerge",
  "hierarchical",
];
const visionMethods: typeof languageMethods = [
  "task-arithmetic",
  "ties",
  "adamerging++",
  "supermerge",
  "hierarchical",
];

/** What the search found for DARE's p; nothing where no candidate searches it. */
function rates(outcome: Outcome, candidates: typeof languageMethods, lab: Lab): string {
  const found = candidates.flatMap((one) =>
    typeof one !== "string" && "grid" in one
      ? [`${rateOf(outcome, one.name, lab).join(", ")} (${one.name})`]
      : [],
  );
  return found.length
    ? "DARE's p as the validation examples chose " +
        `it${lab.seeds.length > 1 ? ", seed by seed" : ""}: ${found.join("; ")}`
    : "";
}

async function inDomain(lab: Lab, candidates: typeof languageMethods): Promise<Produced> {
  const outcome = await lab.compare("in-domain", candidates);
  const { rows: merged } = outcome;
  const individual = merged.filter(({ method }) => method === "individual");
  const rows = [
    ...individual,
    ...(await lab.multitask()),
    ...merged.filter((row) => !individual.includes(row)),
  ];
  return { rows, tables: [tableOf("results", rows, lab, rates(outcome, candidates, lab))], figures: [] };
}

async function outOfDomain(lab: Lab, candidates: typeof languageMethods): Promise<Produced> {
  const outcome = await lab.compare("out-of-domain", [pretrained, ...candidates], { heldOut: lab.heldOut });
  const { rows } = outcome;
  const merged = rows.filter(
    ({ method, task }) => method !== "individual" && (method !== "pretrained" || lab.heldOut.includes(task)),
  );
  return {
    rows: merged,
    figures: [],
    tables: [
      tableOf(
        "held-out",
        onTasks(merged, lab.heldOut),
        lab,
        "tasks that have no part in the merge of " +
          [lab.tasks.join(", "), rates(outcome, candidates, lab)].filter(Boolean).join("; "),
      ),
      tableOf("in-domain", onTasks(merged, lab.tasks), lab, "the same models on the tasks that were merged"),
    ],
  };
}

const hierarchicalIsClose = {
  text: "The hierarchical merge is within two points of SuperMerge's average",
  holds: ({ rows }: Produced, { tasks }: Lab) => {
    const [flat, tree] = [average(rows, "supermerge", tasks), average(rows, "hierarchical", tasks)];
    return flat === undefined || tree === undefined ? undefined : Math.abs(flat - tree) <= 0.02;
  },
};
const heldOut = ({ heldOut: tasks }: Lab) => tasks;

type Candidates = typeof languageMethods;
type TableOptions = Pick<Experiment, "id" | "what" | "minutes"> & { readonly candidates: Candidates };

const inDomainTable = (
  { id, what, minutes, candidates }: TableOptions,
  others: readonly string[],
  models = 2,
): Experiment => ({
  id,
  what,
  minutes,
  models,
  run: (lab) => inDomain(lab, candidates),
  claims: [
    bestOf(`SuperMerge's average is above those of ${others.join(", ")}`, "supermerge", others),
    {
      text: "SuperMerge's average rank is better than theirs, without a tie",
      holds: ({ rows }, { tasks }) => {
        const ranks = averageRanks(
          rows.filter(({ method }) => ["supermerge", "hierarchical", ...others].includes(method)),
          tasks,
        );
        return ranks.has("supermerge")
          ? others.every((other) => (ranks.get(other) ?? Infinity) > ranks.get("supermerge")!)
          : undefined;
      },
    },
    hierarchicalIsClose,
  ],
});
const outOfDomainTable = (
  { id, what, minutes, candidates }: TableOptions,
  claims: Experiment["claims"],
  models = 2,
): Experiment => ({
  id,
  what,
  minutes,
  models,
  heldOut: true,
  run: (lab) => outOfDomain(lab, candidates),
  claims,
});

/** Table 5: what it costs, by the paper's counting and by ours. */
async function cost(lab: Lab): Promise<Produced> {
  const {
    parameters,
    coefficients: trainable,
    experts,
    equation6,
    planned,
    validation,
    train,
  } = await lab.cost();
  // A rule of ours, for the paper gives none: forward and backward take 6 operations a parameter and
  // token; a merge, 2 a parameter and expert, and as many again for its gradient.
  const merge = 2 * experts * parameters;
  const flops = (value: number) => value.toExponential(1);
  const row = (name: string, trainable: string, memory: string, samples: string, operations: string) => [
    name,
    parameters.toLocaleString("en"),
    trainable,
    memory,
    samples,
    operations,
  ];
  return {
    rows: [],
    figures: [],
    numbers: {
      coefficients: trainable,
      parameters,
      "equation 6, all at once, over two at a time": equation6.flat / equation6.pairwise,
    },
    tables: [
      {
        name: "cost",
        caption:
          `${experts} experts; memory by the paper's equation 6, which counts no activations, and ` +
          "as planned here, with them; an epoch of the examples trained on",
        table: {
          head: [
            "method",
            "parameters",
            "trainable",
            "peak memory",
            "training examples",
            "operations an epoch",
          ],
          body: [
            row(
              "full fine-tuning",
              parameters.toLocaleString("en"),
              size(equation6.fineTuning),
              train ? String(train.examples) : "–",
              train ? flops(6 * parameters * train.tokens) : "–",
            ),
            row(
              "methods without gradients",
              "1",
              size(equation6.flat),
              String(validation.examples),
              flops(2 * parameters * validation.tokens + merge),
            ),
            row(
              "SuperMerge",
              String(trainable),
              size(equation6.flat),
              String(validation.examples),
              flops(6 * parameters * validation.tokens + 2 * merge),
            ),
            row(
              "hierarchical SuperMerge",
              String(trainable),
              size(equation6.pairwise),
              String(validation.examples),
              flops(6 * parameters * validation.tokens + 2 * merge),
            ),
            row(
              "SuperMerge, as planned here",
              String(trainable),
              size(planned),
              String(validation.examples),
              flops(6 * parameters * validation.tokens + 2 * merge),
            ),
          ],
        },
      },
    ],
  };
}

export const supermerge: readonly Experiment[] = [
  inDomainTable(
    {
      id: "supermerge/table-1",
      what: "in-domain, language tasks: every method, accuracy and rank",
      minutes: [2, 16],
      candidates: languageMethods,
    },
    ["task-arithmetic", "dare", "ties", "dare-ties"],
  ),
  outOfDomainTable(
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
        ["task-arithmetic", "dare", "ties", "dare-ties"],
        heldOut,
      ),
      {
        text: "DARE with TIES does worst on tasks held out",
        holds: ({ rows }, lab) =>
          ["task-arithmetic", "dare", "ties", "supermerge", "hierarchical"].every(
            (name) => average(rows, "dare-ties", heldOut(lab))! < average(rows, name, heldOut(lab))!,
          ),
      },
    ],
  ),
  inDomainTable(
    {
      id: "supermerge/table-3",
      what: "in-domain, image tasks (AdaMerging++ beside it)",
      minutes: [10, 40],
      candidates: visionMethods,
    },
    ["task-arithmetic", "ties", "adamerging++"],
    6,
  ),
  {
    id: "supermerge/table-4",
    what: "with tanh and without, in-domain and out-of-domain",
    minutes: [2, 6],
    heldOut: true,
    claims: [
      bestOf("In-domain, tanh is better than no gate", "with tanh", ["without tanh"]),
      bestOf("Out-of-domain, tanh is better than no gate", "with tanh", ["without tanh"], heldOut),
    ],
    async run(lab) {
      const { rows } = await lab.compare(
        "gate",
        [trained("with tanh", { gate: "tanh" }), trained("without tanh", { gate: "identity" })],
        { heldOut: lab.heldOut },
      );
      const ours = rows.filter(({ method }) => method.includes("tanh"));
      return {
        rows: ours,
        figures: [],
        tables: [
          tableOf("in-domain", onTasks(ours, lab.tasks), lab),
          tableOf("out-of-domain", onTasks(ours, lab.heldOut), lab),
        ],
      };
    },
  },
  {
    id: "supermerge/table-5",
    what: "what it costs: trainable parameters, memory (equation 6 and as planned here), operations an epoch",
    minutes: [1, 1],
    models: 0,
    run: cost,
    claims: [
      {
        text: "SuperMerge trains fewer than a thousandth of the model's parameters",
        holds: ({ numbers }) => numbers!["coefficients"]! < numbers!["parameters"]! / 1e3,
      },
      {
        text: "Two experts at a time take less memory than all at once, by equation 6",
        holds: ({ numbers }, { tasks }) =>
          tasks.length > 2 ? numbers!["equation 6, all at once, over two at a time"]! > 1 : undefined,
      },
    ],
  },
  outOfDomainTable(
    {
      id: "supermerge/table-6",
      what: "out-of-domain, image tasks",
      minutes: [9, 35],
      candidates: visionMethods,
    },
    ["task-arithmetic", "ties"].map((name) =>
      bestOf(
        `On image tasks held out, ${name} is above SuperMerge and AdaMerging++ (which learned for others)`,
        name,
        ["supermerge", "adamerging++"],
        heldOut,
      ),
    ),
    6,
  ),
  {
    id: "supermerge/figure-2",
    what: "the average against λ",
    minutes: [1, 12],
    run: lambdaSweep,
    claims: [
      {
        text:
          "λ must be searched: between the best and the worst lie more than five points, for every " +
          "method that has one",
        holds: ({ rows }, { tasks }) =>
          Object.keys(swept).every((name) => {
            const values = lambdas.map((lambda) => average(rows, `${name}, λ ${lambda}`, tasks)!);
            return Math.max(...values) - Math.min(...values) > 0.05;
          }),
      },
      {
        text: "DARE and TIES fall on both sides of their best λ, by more than two points",
        holds: ({ rows }, { tasks }) =>
          ["dare", "ties"].every((name) => {
            const values = lambdas.map((lambda) => average(rows, `${name}, λ ${lambda}`, tasks)!);
            return Math.max(...values) - Math.max(values[0]!, values.at(-1)!) > 0.02;
          }),
      },
    ],
  },
  {
    id: "supermerge/figure-3",
    what: "task vectors by layer, as violins",
    minutes: [1, 2],
    models: 0,
    run: violins,
    claims: [
      {
        text:
          "Layers take part unequally: of those that moved, the most changed moves more than twice " +
          "as far as the least, in every expert",
        holds: ({ numbers }) =>
          Object.entries(numbers!).every(([name, ratio]) => name === unlike || ratio > 2),
      },
      {
        text: "One layer is changed unlike by two tasks: somewhere, more than twice as far by one",
        holds: ({ numbers }) => numbers![unlike]! > 2,
      },
    ],
  },
  {
    id: "supermerge/figure-5",
    what: "coefficients by layer and task, AdaMerging++ beside SuperMerge, and by kind of weight",
    minutes: [3, 20],
    models: 3,
    run: coefficients,
    claims: [
      {
        text: "AdaMerging++ leaves more of its coefficients at nothing than SuperMerge does",
        holds: ({ numbers }) =>
          numbers!["part of nothing, adamerging++"]! > numbers!["part of nothing, supermerge"]!,
      },
      {
        text:
          "SuperMerge takes some layers of some experts away: coefficients below nothing, which " +
          "AdaMerging++ has none of",
        holds: ({ numbers }) =>
          numbers!["part below nothing, supermerge"]! > 0 &&
          numbers!["part below nothing, adamerging++"] === 0,
      },
      {
        text:
          "SuperMerge's coefficients of the earlier half of the layers are nearer to nothing than " +
          "those of the later half, on average",
        holds: ({ numbers }) =>
          numbers!["mean |coefficient| of the earlier half, supermerge"]! <
          numbers!["mean |coefficient| of the later half, supermerge"]!,
      },
      bestOf("SuperMerge's average is above AdaMerging++'s", "supermerge", ["adamerging++"]),
    ],
  },
];
