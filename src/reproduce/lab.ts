import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { readJson, sha256 } from "../checkpoint/files.js";
import { Stopped, UserError } from "../errors.js";
import type { InputHash } from "../report/card.js";
import type { Timed } from "../report/comparison.js";
import type { ResultRow } from "../report/rows.js";
import { runComparison, type Compared } from "../compare/compare.js";
import { modelFolder, type Candidate } from "../compare/candidates.js";
import { evaluateFolder } from "../run/evaluate.js";
import { locate, shippedFamily } from "../inputs/locate.js";
import type { MergeHooks } from "../config/options.js";
import { loadTasks, pickTasks } from "../tasks/registry.js";
import { costOf } from "./lab-cost.js";
import { noteInputs, type LabContext, type LabOptions, type LabRecord } from "./lab-context.js";
import { tensorsOf } from "./lab-tensors.js";
import { ordersOf } from "./orders.js";
import type { CompareMore, Lab, Outcome } from "./types.js";

/** A lab, what its numbers were made from, and the minutes that its merges and searches took. */
interface OpenLab {
  readonly lab: Lab;
  readonly inputs: ReadonlyMap<string, InputHash>;
  worked(): number;
}

/** The lab of a family; or of several, each with its runs in a folder of its own, as the first one's `families`. */
export async function openLabs(
  options: LabOptions,
  names: readonly string[] | undefined,
  hooks: MergeHooks,
): Promise<OpenLab> {
  const registry = await loadTasks(options.options.data);
  const record: LabRecord = { inputs: new Map(), seconds: 0 };
  const contexts = familyOptions(options, names).map((one): LabContext => ({
    ...one,
    registry,
    record,
    hooks,
  }));
  const families: Lab[] = [];
  for (const context of contexts) families.push(labOf(context, families));
  const [lab] = families;
  if (!lab) throw new UserError("--families names none");
  return { lab, inputs: record.inputs, worked: () => record.seconds / 60 };
}

/** The options of each family that is compared; of the one, as they are. */
function familyOptions(options: LabOptions, names: readonly string[] | undefined): LabOptions[] {
  if (!names) return [options];
  const called = names.map((family) => basename(family));
  if (new Set(called).size !== called.length)
    throw new UserError(
      `--families ${names.join(",")}: two of the folders are called alike, and rows go by ` +
        "their names; give them names of their own",
    );
  return names.map((family) => ({
    ...options,
    options: { ...options.options, family, base: undefined, experts: undefined },
    runs: join(options.runs, basename(family)),
  }));
}

function labName({ options: { family, base } }: LabOptions): string {
  if (family !== undefined) return basename(family);
  if (base !== undefined) return basename(dirname(base));
  return shippedFamily;
}

/** @param families all that are compared, itself among them */
function labOf(context: LabContext, families: readonly Lab[]): Lab {
  const { options, heldOut, seeds, registry } = context;
  return {
    name: labName(context),
    families,
    tasks: options.tasks,
    heldOut,
    seeds,
    synthetic: pickTasks(registry, [...options.tasks, ...heldOut]).some((task) => task.synthetic),
    valPerTask: options.valPerTask,
    tensors: () => tensorsOf(context),
    compare: (part, candidates, more) => compareAtSeeds(context, part, candidates, more),
    multitask: () => multitaskRows(context),
    orders: (task, merges) => orderRows(context, task, merges),
    cost: () => costOf(context),
  };
}

/** Where merges of some tasks are: by what is merged, so that experiments which share their runs share merges. */
const comparisonFolder = (
  { runs }: LabContext,
  tasks: readonly string[],
  heldOut: readonly string[],
  seed: number,
): string => {
  const without = heldOut.length > 0 ? `-without-${heldOut.join("+")}` : "";
  return join(runs, `${tasks.join("+")}${without}`, `seed${seed}`);
};

const comparisonFile = z.object({
  inputs: z.array(z.object({ role: z.string(), file: z.string(), sha256: z.string() })),
});

async function compareAtSeeds(
  context: LabContext,
  part: string,
  candidates: readonly (string | Candidate)[],
  { tasks = context.options.tasks, heldOut = [], seeds = context.seeds, keep = false }: CompareMore = {},
): Promise<Outcome> {
  const { options, given, record, hooks } = context;
  const rows: ResultRow[] = [];
  const times: Timed[] = [];
  const values = new Map<number, Compared["values"]>();
  const folderAt = (seed: number) => comparisonFolder(context, tasks, heldOut, seed);
  for (const seed of seeds) {
    hooks.note(`${part}, seed ${seed}`);
    const out = folderAt(seed);
    const made = await runComparison(
      {
        ...options,
        tasks,
        seed,
        methods: candidates,
        search: true,
        keep,
        heldOut,
        given,
        out,
        overwrite: true,
      },
      { ...hooks, note: () => {} },
    );
    if (!made.finished) throw new Stopped("stopped; run the same command to continue");
    rows.push(...made.rows);
    times.push(...made.times);
    values.set(seed, made.values);
    record.seconds += made.times.reduce((sum, { total }) => sum + total, 0);
    noteInputs(record, comparisonFile.parse(await readJson(join(out, "results.json"))).inputs);
  }
  return {
    rows,
    times,
    values(name, seed) {
      const found = values.get(seed)?.[name];
      if (!found) throw new UserError(`${name} was not merged at seed ${seed}`);
      return found;
    },
    folder: (name, seed) => modelFolder({ out: folderAt(seed) }, name),
  };
}

async function multitaskRows({ options, seeds, record }: LabContext): Promise<ResultRow[]> {
  const { base } = await locate(options);
  const folder = join(base, "..", "multitask");
  if (!existsSync(join(folder, "heads"))) return [];
  const files = await readdir(folder, { recursive: true });
  for (const file of files.filter((name) => name.endsWith(".safetensors")).sort())
    noteInputs(record, [{ role: "multitask", file, sha256: await sha256(join(folder, file)) }]);
  const rows: ResultRow[] = [];
  for (const seed of seeds) {
    const found = await evaluateFolder({ ...options, folder, base, seed, tasks: options.tasks }, "multitask");
    rows.push(...found.rows);
  }
  return rows;
}

async function orderRows(
  { options, finetuning, seeds, runs, record, hooks }: LabContext,
  task: string,
  merges: readonly Candidate[],
): Promise<ResultRow[]> {
  const rows: ResultRow[] = [];
  for (const seed of seeds) {
    const out = join(runs, `orders-${task}`, `seed${seed}`);
    const found = await ordersOf({ options, finetuning, task, seed, merges, out }, hooks);
    rows.push(...found.rows);
    record.seconds += found.seconds;
    noteInputs(record, found.inputs);
  }
  return rows;
}
