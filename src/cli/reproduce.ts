import { basename } from "node:path";
import type { Command } from "commander";
import { loadSettings, readConfig } from "../config/load.js";
import { settings } from "../config/settings.js";
import { kebab } from "../spelling.js";
import { UserError } from "../errors.js";
import { toText, textOf } from "../report/table.js";
import { fetchNamed } from "../inputs/fetch.js";
import { shippedData } from "../inputs/locate.js";
import { addSettings, positive, wholeFromZero } from "./options.js";
import { progressPrinter } from "./progress.js";
import { stopOnSignal } from "./signals.js";

const examples = `
Examples:
  $ train-merge reproduce --list
  $ train-merge reproduce supermerge/table-1                     on the synthetic family that ships
  $ train-merge reproduce supermerge/table-2 --family minilm --data data/text --tasks cb,trec6,sst2 --held-out rte,copa
The same command goes on after Ctrl-C. It exits with 1 where a number is outside what experiments/ expects
of the family.`;

/** A word as a shell reads it. */
const quoted = (word: string): string => (/^[\w./,=@:+-]+$/.test(word) ? word : `'${word}'`);

function claimLine({ text, holds }: { text: string; holds: boolean | undefined }): string {
  if (holds === undefined) return `?    ${text}`;
  return `${holds ? "yes" : "no "}  ${text}`;
}

/** What the shipped family is asked, where nobody says. */
const shipped = { tasks: "rte,cb,copa", heldOut: "sst2,trec6" };

const list = (text: string): string[] =>
  text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);

export function addReproduce(program: Command): void {
  const command = program
    .command("reproduce [experiment]")
    .description("make a table or figure of the papers, with what the paper says of it checked");
  addSettings(command, ["method", "variant", "treat", "adaptOn", "loss", "seed"]);
  command
    .option("--list", "list what there is, with the time it takes")
    .option("--held-out <names>", "tasks that have no part in the merges, for what tests those")
    .option(
      "--families <names>",
      "families that are compared, for what compares several: a weak and a strong base of each " +
        "size in turn, small to large",
    )
    .option("--models <n>", "for what fine-tunes models of its own: how many", "5")
    .option("--epochs <n>", "… how often they see all examples", "3")
    .option("--finetune-lr <x>", "… at which learning rate", "5e-5")
    .option("--most <n>", "… how many training examples are used (default: all)")
    .option(
      "--runs <folder>",
      "where merges are kept: experiments one after the other may share it, and do nothing " +
        "again that another did (default: in --out)",
    )
    .option(
      "--config <file>",
      "a YAML file of settings, such as the config.yaml of an experiment's folder; options win over it",
    )
    .option("--seeds <numbers>", "seeds, separated by commas", "0")
    .option("--json", "print what was found as JSON")
    .addHelpText("after", examples)
    .action(
      async (
        id: string | undefined,
        options: Record<string, unknown> & {
          list?: boolean;
          heldOut?: string;
          config?: string;
          seeds: string;
          json?: boolean;
          families?: string;
          runs?: string;
          models: string;
          epochs: string;
          finetuneLr: string;
          most?: string;
        },
      ) => {
        const { experiments, experimentOf } = await import("../reproduce/index.js");
        if (options.list || id === undefined) {
          const body = experiments.map(({ id: name, what, minutes: [small, real], models = 2 }) => [
            name,
            what,
            `${small} min`,
            `${real} min`,
            models ? `${models} models` : "–",
          ]);
          const table = toText({ head: ["experiment", "what", "mini", "20 million", "disk"], body }, [
            "left",
            "left",
          ]);
          process.stdout.write(
            `${table}\n\nminutes ` +
              "a seed on two cores, on the family that ships (image tables: on a ViT of one million " +
              "parameters) and on one of 20 million; disk: so many models of the family's size while " +
              "it runs\n(a model that ships has 1 MB, one of 20 million parameters 45 to 90 MB), and " +
              "some MB of reports; of what fine-tunes models of its own, for each\ntask and seed, five " +
              "models of float32, their merges and the training's state\n",
          );
          return;
        }
        const experiment = experimentOf(id);
        const families = options.families === undefined ? undefined : list(options.families);
        if ((families?.length ?? 1) < (experiment.families ?? 1))
          throw new UserError(
            `${id} compares families: name them with --families, a weak and a strong base of each size in turn`,
          );
        if (families && !experiment.families)
          throw new UserError(`--families: ${id} looks at one family; name it with --family`);
        const besides = families && ["family", "base", "experts"].find((key) => options[key] !== undefined);
        if (besides) throw new UserError(`--${besides}: --families names the models already`);
        const teaching = (["models", "epochs", "finetuneLr", "most"] as const).find(
          (key) => command.getOptionValueSource(key) === "cli",
        );
        if (teaching && !experiment.trains)
          throw new UserError(`--${kebab(teaching)}: ${id} fine-tunes no models of its own`);
        const own =
          families === undefined &&
          options["family"] === undefined &&
          options["base"] === undefined &&
          options.config === undefined;
        if (!own && options["tasks"] === undefined && options.config === undefined)
          throw new UserError("name the tasks that the family has experts for: --tasks cb,trec6,sst2");
        const seeds = list(options.seeds).map((seed) => wholeFromZero("seeds", seed));
        if (!seeds.length) throw new UserError("--seeds: give one number or several, separated by commas");
        const finetuning = {
          models: positive("models", options.models, true),
          epochs: positive("epochs", options.epochs, true),
          lr: positive("finetune-lr", options.finetuneLr, false),
          ...(options.most !== undefined && { most: positive("most", options.most, true) }),
        };
        const chosen = await loadSettings(
          { ...options, ...(own && { tasks: options["tasks"] ?? shipped.tasks }) },
          options.config,
        );
        const heldOut = list(
          options.heldOut ?? (own && options["tasks"] === undefined ? shipped.heldOut : ""),
        ).filter((task) => !chosen.tasks.includes(task));
        if (experiment.heldOut && heldOut.length === 0)
          throw new UserError(`${id} tests tasks that have no part in the merge: name them with --held-out`);
        const fromFile = options.config === undefined ? {} : await readConfig(options.config);
        const given = Object.fromEntries(
          Object.keys(settings)
            .filter(
              (key) =>
                (options[key] !== undefined || key in fromFile) &&
                ![
                  "tasks",
                  "out",
                  "base",
                  "experts",
                  "family",
                  "data",
                  "memoryBudget",
                  "backend",
                  "residency",
                  "blocks",
                ].includes(key),
            )
            .map((key) => [key, chosen[key as keyof typeof chosen]]),
        );
        const printer = progressPrinter(process.stderr);
        const signals = stopOnSignal(printer.note);
        signals.training(true);
        const { reproduce, defaultOut } = await import("../reproduce/run.js");
        const out =
          chosen.out ??
          defaultOut(experiment, families?.map((name) => basename(name)).join("+") ?? chosen.family);
        const words = process.argv.slice(2);
        const { found, claims, missed, numbers, minutes } = await reproduce(
          experiment,
          {
            options: { ...(await fetchNamed(chosen, printer)), data: chosen.data ?? shippedData },
            heldOut: experiment.heldOut ? heldOut : [],
            seeds,
            finetuning,
            families,
            runs: options.runs,
            given,
            out,
            command: `train-merge ${words.map(quoted).join(" ")}`,
          },
          { ...printer, stopping: signals.requested },
        );
        printer.end();
        if (options.json)
          process.stdout.write(
            `${JSON.stringify({ out, numbers, claims, missed, rows: found.rows }, undefined, 2)}\n`,
          );
        else {
          for (const { name, caption, table } of found.tables) {
            const body = table.body.map((line) => line.map(textOf));
            process.stdout.write(`\n${name}: ${caption}\n${toText({ head: table.head, body })}\n`);
          }
          process.stdout.write(
            `\n${claims.map(claimLine).join("\n")}\n\n${minutes.toFixed(1)} ` +
              `minutes; written to ${out} (report.md, report.html, tables as md, tex and csv, figures ` +
              "as svg and png, results.json)\n",
          );
        }
        if (missed.length) {
          process.stderr.write(
            `train-merge: outside what is expected:\n${missed.map((line) => `  ${line}\n`).join("")}`,
          );
          process.exitCode = 1;
        }
      },
    );
}
