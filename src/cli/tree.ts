import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { Option, type Command } from "commander";
import { parse } from "yaml";
import { loadSettings } from "../config/load.js";
import { addSettings } from "./options.js";
import { UserError, stoppedCode } from "../errors.js";
import { planRows } from "../report/tree.js";
import { toText } from "../report/table.js";
import { nodeMethods, type NodeMethod } from "../treerun/node-file.js";
import type { TreeOptions } from "../treerun/plan.js";
import type { Nested } from "../tree/plan.js";
import { printOutcome } from "./outcome.js";
import { fetchNamed } from "../inputs/fetch.js";
import { progressPrinter } from "./progress.js";
import { stopOnSignal } from "./signals.js";

const examples = `
Examples:
  $ train-merge tree --tasks rte,cb,copa,sst2,trec6                pairs of similar tasks first
  $ train-merge tree --tasks rte,cb,copa --fan-in 3 --jobs 2
  $ train-merge tree --tasks rte,cb,copa --by groups.yaml          such as [[rte, cb], copa]
  $ train-merge tree --tasks rte,cb,copa --polish 20               then train the flattened table
The same command goes on after Ctrl-C, a crash or a change: nodes that are done are not run again.`;

interface Given {
  fanIn?: string;
  pairwise?: boolean;
  by: string;
  jobs: string;
  polish: string;
  keepNodes?: boolean;
  nodeMethod: NodeMethod;
  executor: "local" | "slurm";
  slurmOption?: string[];
  config?: string;
  json?: boolean;
}

function whole(option: string, value: string, least: number): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number) || number < least)
    throw new UserError(`--${option} ${value}: it must be a whole number from ${least} on`);
  return number;
}

/** `--by`: a word, or a file of groups. */
async function grouping(by: string): Promise<TreeOptions["by"]> {
  if (by === "similarity" || by === "order") return by;
  if (!existsSync(by))
    throw new UserError(`--by ${by}: it is neither similarity nor order, and there is no such file`);
  try {
    return { file: by, groups: parse(await readFile(by, "utf8")) as Nested };
  } catch (error) {
    throw new UserError(`${by}: ${(error as Error).message.split("\n")[0]}`);
  }
}

export function addTree(program: Command): void {
  const command = program
    .command("tree")
    .description(
      "merge in a tree: groups of similar models first, then the merges, level by level; each " +
        "node is trained on its own tasks",
    );
  addSettings(command);
  command
    .option(
      "--fan-in <n>",
      "models that a node merges at most (default: as many as --memory-budget allows, 2 without one)",
    )
    .option("--pairwise", "the same as --fan-in 2")
    .option(
      "--by <how>",
      "groups by similarity of the task vectors, by order of --tasks, or as a YAML or JSON FILE nests them",
      "similarity",
    )
    .option("--jobs <n>", "nodes that run side by side", "1")
    .option("--polish <steps>", "train the flattened tree for so many steps", "0")
    .option("--keep-nodes", "write every node's merged model too")
    .addOption(
      new Option("--node-method <name>", "how a node merges").choices([...nodeMethods]).default("supermerge"),
    )
    .addOption(
      new Option("--executor <name>", "where nodes run: here, or as jobs of a SLURM cluster")
        .choices(["local", "slurm"])
        .default("local"),
    )
    .option("--slurm-option <option...>", "handed to sbatch, such as --slurm-option=--partition=gpu")
    .option("--config <file>", "a YAML file of the settings of `train-merge train`; options win over it")
    .option("--json", "print the results as JSON on stdout")
    .addHelpText("after", examples)
    .action(async (options: Record<string, unknown> & Given) => {
      const chosen = await loadSettings(options, options.config);
      const by = await grouping(options.by);
      if (typeof by === "object" && (options.fanIn !== undefined || options.pairwise))
        throw new UserError(`--fan-in is not for groups that a file names (${by.file})`);
      if (options.pairwise && options.fanIn !== undefined && options.fanIn !== "2")
        throw new UserError("--pairwise means --fan-in 2; give one of them");
      const printer = progressPrinter(process.stderr);
      const signals = stopOnSignal(printer.note);
      const fanIn = options.fanIn === undefined ? undefined : whole("fan-in", options.fanIn, 2);
      const { mergeInTree } = await import("../treerun/run.js");
      const { hub: _, ...fetched } = await fetchNamed(chosen, printer);
      const result = await mergeInTree(
        fetched,
        {
          fanIn: options.pairwise ? 2 : fanIn,
          by,
          jobs: whole("jobs", options.jobs, 1),
          polish: whole("polish", options.polish, 0),
          keepNodes: options.keepNodes ?? false,
          nodeMethod: options.nodeMethod,
          executor: options.executor,
          slurmOptions: options.slurmOption ?? [],
        },
        {
          ...printer,
          stopping: signals.requested,
          planned({ nodes, out }) {
            printer.note(`${toText(planRows(nodes))}\nsaved in ${out}/tree.json and plan.json`);
            signals.training(true);
          },
          grown: () => signals.training(false),
          step(record, tasks, steps) {
            signals.training(record.step < steps);
            printer.step(record, tasks, steps);
          },
        },
      );
      printer.end();
      printOutcome(
        result,
        {
          json: options.json,
          valPerTask: chosen.valPerTask,
          goOn: "the same command",
          files: "README.md, report.html, tree.png, similarity.png, results.json",
        },
        printer.note,
      );
    });

  program
    .command("node <file>")
    .description("run one node of a tree: nodes/<id>/node.json, as `train-merge tree` writes it")
    .addHelpText(
      "after",
      "\nExample:\n  $ train-merge node merged/mini-rte+cb+copa-tree/nodes/rte+cb/node.json",
    )
    .action(async (file: string) => {
      // A parent that is gone, killed or not, wants no more of this.
      if (process.send) process.on("disconnect", () => process.exit(stoppedCode));
      const { runNode } = await import("../treerun/node.js");
      const printer = progressPrinter(process.stderr);
      // At a terminal Ctrl-C reaches a tree and its nodes alike; a node waits for its tree's word.
      const signals = stopOnSignal(printer.note, process.send ? ["SIGTERM"] : undefined);
      const finished = await runNode(file, (settings) => loadSettings(settings), {
        ...printer,
        stopping: signals.requested,
        step(record, tasks, steps) {
          signals.training(record.step < steps);
          printer.step(record, tasks, steps);
        },
      });
      printer.end();
      if (!finished) process.exitCode = stoppedCode;
    });
}
