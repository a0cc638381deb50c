import { basename, join } from "node:path";
import { writeText, digest } from "../checkpoint/files.js";
import { version } from "../package.js";
import { distinct } from "../report/rows.js";
import { locate } from "../inputs/locate.js";
import type { MergeHooks } from "../config/options.js";
import { openOutput } from "../folder/output.js";
import { openLabs, type LabOptions } from "./lab.js";
import { isOf, readExpected, readPaper, type Expected } from "./papers.js";
import { average } from "./shared.js";
import type { Experiment } from "./types.js";
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
  );
  // What a stopped run left is known by this.
  await writeText(join(out, "reproduce.json"), { version, id: experiment.id });
  const { lab, inputs, worked } = await openLabs(
    { ...options, runs: options.runs ?? join(out, "runs") },
    families,
    hooks,
  );
  const found = await experiment.run(lab);
  const tasks = distinct(found.rows.map(({ task }) => task));
  const averages = distinct(found.rows.map(({ method }) => method)).flatMap((method) => {
    const here = tasks.filter((task) => found.rows.some((row) => row.method === method && row.task === task));
    const value = average(found.rows, method, here);
    return value === undefined ? [] : [[`average, ${method}`, value] as const];
  });
  const numbers: Record<string, number> = { ...Object.fromEntries(averages), ...found.numbers };
  const hashes = [...inputs.values()].sort((a, b) =>
    `${a.role}/${a.file}` < `${b.role}/${b.file}` ? -1 : 1,
  );
  const { families: ranges } = await readExpected(experiment);
  const chosen = { ...options.given, ...(experiment.trains && options.finetuning) };
  const { tasks: merged, heldOut, seeds } = lab;
  const range = ranges.find((one) =>
    isOf(one, { tasks: merged, heldOut, seeds, given: chosen, inputs: hashes }),
  );
  const missed = range ? missedOf(numbers, range) : [];
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
    claims: experiment.claims.map(({ text, holds }) => ({ text, holds: holds(found, lab) })),
  };
  await writeExperiment(out, record);
  return record;
}

/** What of some numbers is not within its range. */
export const missedOf = (
  numbers: Readonly<Record<string, number>>,
  { name: family, numbers: ranges }: Expected["families"][number],
): string[] =>
  Object.entries(ranges).flatMap(([name, { value, tolerance }]) => {
    const mine = numbers[name];
    return mine !== undefined && Math.abs(mine - value) <= tolerance
      ? []
      : [
          `${name}: ${mine === undefined ? "it was not found" : mine.toPrecision(4)}, expected ` +
            `${value} ± ${tolerance} (${family})`,
        ];
  });

/** Where an experiment's results go, where nobody says. */
export const defaultOut = ({ id }: Experiment, family: string | undefined): string =>
  join("merged", "reproduce", `${id.replace("/", "-")}${family === undefined ? "" : `-${basename(family)}`}`);
