import { basename } from "node:path";
import type { Command } from "commander";
import { z } from "zod";
import { loadSettings, readSettingsFile } from "../config/load.js";
import { above, wholeNumber, commaSeparated } from "../config/numbers.js";
import type { Settings } from "../config/schema.js";
import { kebab, missedCode, UsageError } from "../errors.js";
import { dataOf, fetchNamed, inOneFolder } from "../inputs/locate.js";
import { withoutMarks } from "../report/rows.js";
import { textOf, toText } from "../report/table.js";
import { surenessText, type ToldClaim } from "../reproduce/claims.js";
import type { Experiment } from "../reproduce/types.js";
import { startCommand } from "./running.js";
import { addSettings, checkedOption, givenSettings, printJson, whereabouts, type Given } from "./options.js";

const reproduceHelp = `
Examples:
  $ train-merge reproduce --list
  $ train-merge reproduce supermerge/table-1                     on the synthetic family that ships
  $ train-merge reproduce supermerge/table-2 --family minilm --data data/text --tasks cb,trec6,sst2 --held-out rte,copa
The same command goes on after Ctrl-C. It exits with 1 where a number is outside what experiments/ expects
of the family.`;

interface ReproduceFlags extends Given {
  list?: boolean;
  heldOut?: string;
  config?: string;
  seeds: number[];
  json?: boolean;
  families?: string;
  runs?: string;
  models: number;
  epochs: number;
  finetuneLr: number;
  most?: number;
}

const seedList = z.preprocess(
  (text) => commaSeparated(String(text)),
  z.array(wholeNumber(0)).min(1, "give one number or several, separated by commas"),
);

/** A word as a shell reads it. */
const shellWord = (word: string): string => (/^[\w./,=@:+-]+$/.test(word) ? word : `'${word}'`);

const claimLine = (claim: ToldClaim): string => {
  const sure = surenessText(claim);
  return `${claim.verdict.padEnd(11)} ${claim.text}${sure && `\n            (${sure})`}`;
};

/** What the shipped family is asked, where nobody says. */
const shipped = { tasks: "rte,cb,copa", heldOut: "sst2,trec6" };

function listText(experiments: readonly Experiment[]): string {
  const body = experiments.map(({ id, what, minutes: [small, real], models = 2 }) => [
    id,
    what,
    `${small} min`,
    `${real} min`,
    models ? `${models} models` : "–",
  ]);
  const head = ["experiment", "what", "mini", "20 million", "disk"];
  return (
    `${toText({ head, body }, ["left", "left"])}\n\nminutes ` +
    "a seed on two cores, on the family that ships (image tables: on a ViT of one million " +
    "parameters) and on one of 20 million; disk: so many models of the family's size while " +
    "it runs\n(a model that ships has 1 MB, one of 20 million parameters 45 to 90 MB), and " +
    "some MB of reports; of what fine-tunes models of its own, for each\ntask and seed, five " +
    "models of float32, their merges and the training's state\n"
  );
}

/** The families that are compared. @throws UsageError where the experiment and the options do not go together */
function familiesOf({ id, families: needed }: Experiment, options: ReproduceFlags): string[] | undefined {
  const families = options.families === undefined ? undefined : commaSeparated(options.families);
  if ((families?.length ?? 1) < (needed ?? 1))
    throw new UsageError(
      `${id} compares families: name them with --families, a weak and a strong base of each size in turn`,
    );
  if (!families) return undefined;
  if (!needed) throw new UsageError(`--families: ${id} looks at one family; name it with --family`);
  const besides = ["family", "base", "experts"].find((key) => options[key] !== undefined);
  if (besides) throw new UsageError(`--${besides}: --families names the models already`);
  return families;
}

/** How the experiment fine-tunes models of its own. @throws UsageError where it does not, and the user says how */
function finetuningOf({ id, trains }: Experiment, command: Command, options: ReproduceFlags) {
  const given = ["models", "epochs", "finetuneLr", "most"].find(
    (key) => command.getOptionValueSource(key) === "cli",
  );
  if (given !== undefined && !trains)
    throw new UsageError(`--${kebab(given)}: ${id} fine-tunes no models of its own`);
  const { models, epochs, finetuneLr: lr, most } = options;
  return { models, epochs, lr, ...(most !== undefined && { most }) };
}

/** Tasks and settings: those of the family that ships where the user names no family. */
async function settingsFor(
  experiment: Experiment,
  families: readonly string[] | undefined,
  options: ReproduceFlags,
): Promise<{ chosen: Settings; heldOut: string[]; given: Readonly<Record<string, unknown>> }> {
  const { tasks, family, base } = options;
  const named = [families, family, base, options.config].some((one) => one !== undefined);
  if (named && tasks === undefined && options.config === undefined)
    throw new UsageError("name the tasks that the family has experts for: --tasks cb,trec6,sst2");
  const asked = named ? options : { ...options, tasks: tasks ?? shipped.tasks };
  const chosen = await loadSettings(asked, options.config);
  const others = options.heldOut ?? (named || tasks !== undefined ? "" : shipped.heldOut);
  const heldOut = commaSeparated(others).filter((task) => !chosen.tasks.includes(task));
  if (experiment.heldOut && heldOut.length === 0)
    throw new UsageError(
      `${experiment.id} tests on tasks that are not part of the merge: name them with --held-out`,
    );
  const fromFile = options.config === undefined ? {} : await readSettingsFile(options.config);
  const given = givenSettings(chosen, (key) => options[key] !== undefined || key in fromFile, [
    ...whereabouts,
    "backend",
    "residency",
    "blocks",
  ]);
  return { chosen, heldOut: experiment.heldOut ? heldOut : [], given };
}

async function runReproduce(
  id: string | undefined,
  options: ReproduceFlags,
  command: Command,
): Promise<void> {
  const { experiments, experimentOf } = await import("../reproduce/index.js");
  if (options.list || id === undefined) {
    process.stdout.write(listText(experiments));
    return;
  }
  const experiment = experimentOf(id);
  const families = familiesOf(experiment, options);
  const finetuning = finetuningOf(experiment, command, options);
  const { chosen, heldOut, given } = await settingsFor(experiment, families, options);
  const job = startCommand();
  job.training(true);
  const { reproduce, defaultOut } = await import("../reproduce/run.js");
  const called = families?.map((name) => basename(name)).join("+") ?? chosen.family;
  const out = chosen.out ?? defaultOut(experiment, called);
  const fetched = await fetchNamed(chosen, job);
  const made = await reproduce(
    experiment,
    {
      options: {
        ...fetched,
        data: await dataOf(fetched),
        // Experiments merge some of the experts, and take heads of others.
        ...(fetched.experts && { experts: await inOneFolder(fetched.experts) }),
      },
      heldOut,
      seeds: options.seeds,
      finetuning,
      families,
      runs: options.runs,
      given,
      out,
      command: `train-merge ${process.argv.slice(2).map(shellWord).join(" ")}`,
    },
    job,
  );
  job.end();
  const { found, claims, missed, numbers, minutes } = made;
  if (options.json) printJson({ out, numbers, claims, missed, rows: withoutMarks(found.rows) });
  else {
    for (const { name, caption, table } of found.tables) {
      const body = table.body.map((line) => line.map(textOf));
      process.stdout.write(`\n${name}: ${caption}\n${toText({ head: table.head, body })}\n`);
    }
    process.stdout.write(
      `\n${claims.map(claimLine).join("\n")}\n\n${minutes.toFixed(1)} minutes; written to ${out} ` +
        "(report.md, report.html, tables as md, tex and csv, figures as svg and png, results.json)\n",
    );
  }
  if (missed.length === 0) return;
  const lines = missed.map((line) => `  ${line}\n`).join("");
  process.stderr.write(`train-merge: outside what is expected:\n${lines}`);
  process.exitCode = missedCode;
}

export function addReproduce(program: Command): void {
  const command = program
    .command("reproduce [experiment]")
    .description("make a table or figure of the papers, and check the paper's claims about it");
  addSettings(command, ["method", "variant", "treat", "adaptOn", "loss", "seed"]);
  command
    .option("--list", "list the experiments, with the time each takes")
    .option("--held-out <names>", "tasks that are not merged, for experiments that test on them")
    .option(
      "--families <names>",
      "families that are compared, for experiments that compare several: a weak and a strong base of each " +
        "size in turn, small to large",
    )
    .addOption(
      checkedOption(
        "--models <n>",
        "for experiments that fine-tune models of their own: how many",
        wholeNumber(),
      ).default(5),
    )
    .addOption(checkedOption("--epochs <n>", "… how often they see all examples", wholeNumber()).default(3))
    .addOption(checkedOption("--finetune-lr <x>", "… at which learning rate", above(0)).default(5e-5))
    .addOption(
      checkedOption("--most <n>", "… how many training examples are used (default: all)", wholeNumber()),
    )
    .option(
      "--runs <folder>",
      "where merges are kept: experiments one after the other may share it, and do nothing " +
        "again that another did (default: in --out)",
    )
    .option(
      "--config <file>",
      "a YAML file of settings, such as the config.yaml of an experiment's folder; options win over it",
    )
    .addOption(checkedOption("--seeds <numbers>", "seeds, separated by commas", seedList).default([0], "0"))
    .option("--json", "print what was found as JSON")
    .addHelpText("after", reproduceHelp)
    .action((id: string | undefined, options: ReproduceFlags) => runReproduce(id, options, command));
}
