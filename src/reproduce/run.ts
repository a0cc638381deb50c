import { basename, join } from "node:path";
import { writeText, digest } from "../checkpoint/files.js";
import { version } from "../package.js";
import { averageOf, distinct, type ResultRow } from "../report/rows.js";
import { locate } from "../inputs/locate.js";
import type { MergeHooks } from "../config/options.js";
import { openOutput } from "../folder/output.js";
import { openLabs } from "./lab.js";
import type { LabOptions } from "./lab-context.js";
import { isOf, readExpected, readPaper, type Expected } from "./papers.js";
import { verdictOf } from "./claims.js";
import type { Experiment, Lab, Produced } from "./types.js";
import { writeExperiment, type Reproduction } from "./write.js";

export interface ReproduceOptions extends Omit<LabOptions, "runs"> {
  /** Where merges are kept, which other experiments may share (default: in the output folder). */
  readonly runs?: string | undefined;
  readonly out: string;
  /** Families that are compared (default: the one of the options). */
  readonly families?: readonly string[] | undefined;
  /** As the user wrote it: it stands in every file that is made. */
  readonly command: string;
}

/**
 * Makes a paper's table or figure on a family, checks what the paper says of it, and compares its
 * numbers with what is expected of that family, where something is.
 * @returns what was written; `missed` names what is outside its expected range
 */
export async function reproduce(
  experiment: Experiment,
  options: ReproduceOptions,
  hooks: MergeHooks,
): Promise<Reproduction> {
  const started = performance.now();
  const { out, command, options: settings, families } = options;
  const locations = await Promise.all(
    families ? families.map((family) => locate({ family, tasks: settings.tasks })) : [locate(settings)],
  );
  await openOutput(
    out,
    locations.flatMap(({ base, sources }) => [base, ...sources.map(({ folder }) => folder)]),
    true,
  );
  // What a stopped run left is known by this.
  await writeText(join(out, "reproduce.json"), { version, id: experiment.id });
  const { lab, inputs, worked } = await openLabs(
    { ...options, runs: options.runs ?? join(out, "runs") },
    families,
    hooks,
  );
  const found = await experiment.run(lab);
  const numbers = { ...averagesOf(found.rows), ...found.numbers };
  const hashes = [...inputs.values()].sort((a, b) =>
    `${a.role}/${a.file}` < `${b.role}/${b.file}` ? -1 : 1,
  );
  const { families: ranges } = await readExpected(experiment);
  const chosen = { ...options.given, ...(experiment.trains && options.finetuning) };
  const { tasks: merged, heldOut, seeds } = lab;
  const range = ranges.find((one) =>
    isOf(one, { tasks: merged, heldOut, seeds, given: chosen, inputs: hashes }),
  );
  const missed = (range && missedOf(numbers, range)) ?? [];
  const record: Reproduction = {
    experiment,
    found,
    command,
    missed,
    numbers,
    inputs: hashes,
    settings: chosen,
    inputsHash: digest(hashes).slice(0, 12),
    synthetic: lab.synthetic,
    tasks: merged,
    heldOut,
    seeds: found.seeds ?? seeds,
    minutes: (performance.now() - started) / 60_000,
    worked: worked(),
    paper: await readPaper(experiment),
    claims: tellClaims(experiment, found, lab),
  };
  await writeExperiment(out, record);
  return record;
}

/** What is said of an experiment's claims. */
export function tellClaims(
  { claims }: Pick<Experiment, "claims">,
  found: Produced,
  lab: Lab,
): Reproduction["claims"] {
  const each = claims.map((one) => ({
    text: one.text,
    holds: one.holds(found, lab),
    sureness: one.sureness(found, lab),
  }));
  const of = each.filter(({ sureness }) => sureness !== undefined).length;
  return each.map((one) => ({ ...one, verdict: verdictOf(one.holds, one.sureness, of) }));
}

/** Each method's average over the tasks that it was tested on, by what the number is called. */
function averagesOf(rows: readonly ResultRow[]): Record<string, number> {
  const numbers: Record<string, number> = {};
  const tasks = distinct(rows.map(({ task }) => task));
  for (const method of distinct(rows.map((row) => row.method))) {
    const tested = tasks.filter((task) => rows.some((row) => row.method === method && row.task === task));
    const found = averageOf(rows, method, tested);
    if (found) numbers[`average, ${method}`] = found.mean;
  }
  return numbers;
}

/** What of some numbers is not within its range. */
export function missedOf(
  numbers: Readonly<Record<string, number>>,
  { name: family, numbers: ranges }: Expected["families"][number],
): string[] {
  const missed: string[] = [];
  for (const [name, { value, tolerance }] of Object.entries(ranges)) {
    const mine = numbers[name];
    if (mine !== undefined && Math.abs(mine - value) <= tolerance) continue;
    const what = mine === undefined ? "it was not found" : mine.toPrecision(4);
    missed.push(`${name}: ${what}, expected ${value} ± ${tolerance} (${family})`);
  }
  return missed;
}

/** Where an experiment's results go, where nobody says. */
export function defaultOut({ id }: Experiment, family: string | undefined): string {
  const folder = join("merged", "reproduce", id.replace("/", "-"));
  if (family === undefined) return folder;
  return `${folder}-${basename(family)}`;
}
