import { existsSync } from "node:fs";
import { basename, dirname } from "node:path";
import { Option, type Command } from "commander";
import { z } from "zod";
import { loadSettings } from "../config/load.js";
import { readYaml } from "../config/yaml.js";
import { wholeNumber } from "../config/numbers.js";
import { stoppedCode, UsageError, UserError } from "../errors.js";
import { nodeFile } from "../folder/tree-files.js";
import { nodeMethods, type NodeMethod } from "../treerun/methods.js";
import { fetchNamed } from "../inputs/locate.js";
import { toText } from "../report/table.js";
import { planRows } from "../report/tree.js";
import type { Nested } from "../tree/plan.js";
import type { TreeOptions } from "../treerun/plan.js";
import { startCommand, printOutcome } from "./running.js";
import { addSettings, checkedOption, type Given } from "./options.js";
import { watchHelp, watchOption, watchWhere } from "./watch.js";

const treeHelp = `
Examples:
  $ train-merge tree --tasks rte,cb,copa,sst2,trec6                pairs of similar tasks first
  $ train-merge tree --tasks rte,cb,copa --fan-in 3 --jobs 2
  $ train-merge tree --tasks rte,cb,copa --by groups.yaml          such as [[rte, cb], copa]
  $ train-merge tree --tasks rte,cb,copa --polish 20               then train the flattened table
The same command goes on after Ctrl-C, a crash or a change: nodes that are done are not run again.`;

interface TreeFlags extends Given {
  fanIn?: number;
  pairwise?: boolean;
  by: string;
  jobs: number;
  polish: number;
  keepNodes?: boolean;
  nodeMethod: NodeMethod;
  executor: "local" | "slurm";
  slurmOption?: string[];
  config?: string;
  watch?: boolean;
  json?: boolean;
}

const nested: z.ZodType<Nested> = z.lazy(() => z.union([z.string(), z.array(nested)]));

/** `--by`: a word, or a file of groups. */
async function grouping(by: string): Promise<TreeOptions["by"]> {
  if (by === "similarity" || by === "order") return by;
  if (!existsSync(by))
    throw new UsageError(`--by ${by}: it is neither similarity nor order, and there is no such file`);
  const groups = nested.safeParse(await readYaml(by));
  if (groups.success) return { file: by, groups: groups.data };
  throw new UserError(`${by}: write groups as nested lists of tasks, such as [[rte, cb], copa]`);
}

async function treeOptions(options: TreeFlags): Promise<TreeOptions> {
  const by = await grouping(options.by);
  const { fanIn, pairwise } = options;
  if (typeof by === "object" && (fanIn !== undefined || pairwise))
    throw new UsageError(`--fan-in is not for groups that a file names (${by.file})`);
  if (pairwise && fanIn !== undefined && fanIn !== 2)
    throw new UsageError("--pairwise means --fan-in 2; give one of them");
  return {
    fanIn: pairwise ? 2 : fanIn,
    by,
    jobs: options.jobs,
    polish: options.polish,
    keepNodes: options.keepNodes ?? false,
    nodeMethod: options.nodeMethod,
    executor: options.executor,
    slurmOptions: options.slurmOption ?? [],
  };
}

async function runTree(options: TreeFlags): Promise<void> {
  const chosen = await loadSettings(options, options.config);
  const tree = await treeOptions(options);
  const job = startCommand();
  const { mergeTree } = await import("../treerun/run.js");
  const { hub: _, ...fetched } = await fetchNamed(chosen, job);
  const watched = watchWhere(options.watch, job.note);
  const result = await mergeTree(fetched, tree, {
    ...job,
    planned({ nodes, out }) {
      job.note(`${toText(planRows(nodes))}\nsaved in ${out}/tree.json and plan.json`);
      job.training(true);
      void watched(out);
    },
    nodesDone: () => job.training(false),
  });
  job.end();
  const files = "README.md, report.html, tree.png, similarity.png, results.json";
  const { json } = options;
  printOutcome(result, { json, valPerTask: chosen.valPerTask, goOn: "the same command", files }, job.note);
}

async function runOne(file: string): Promise<void> {
  if (basename(file) !== nodeFile.name)
    throw new UserError(`${file}: give a node's ${nodeFile.name}, as \`train-merge tree\` writes it`);
  // A parent that is gone, killed or not, wants no more of this.
  if (process.send) process.on("disconnect", () => process.exit(stoppedCode));
  const { runNode } = await import("../treerun/node.js");
  // At a terminal Ctrl-C reaches a tree and its nodes alike; a node waits for its tree's word.
  const job = startCommand(process.send ? ["SIGTERM"] : undefined);
  const finished = await runNode(dirname(file), (settings) => loadSettings(settings), job);
  job.end();
  if (!finished) process.exitCode = stoppedCode;
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
    .addOption(
      checkedOption(
        "--fan-in <n>",
        "models that a node merges at most (default: as many as --memory-budget allows, 2 without one)",
        wholeNumber(2),
      ),
    )
    .option("--pairwise", "the same as --fan-in 2")
    .option(
      "--by <how>",
      "groups by similarity of the task vectors, by order of --tasks, or as a YAML or JSON FILE nests them",
      "similarity",
    )
    .addOption(checkedOption("--jobs <n>", "nodes that run side by side", wholeNumber()).default(1))
    .addOption(
      checkedOption("--polish <steps>", "train the flattened tree for so many steps", wholeNumber(0)).default(
        0,
      ),
    )
    .option("--keep-nodes", "write every node's merged model too")
    .addOption(
      new Option("--node-method <name>", "how a node merges").choices(nodeMethods).default("supermerge"),
    )
    .addOption(
      new Option("--executor <name>", "where nodes run: here, or as jobs of a SLURM cluster")
        .choices(["local", "slurm"])
        .default("local"),
    )
    .option("--slurm-option <option...>", "handed to sbatch, such as --slurm-option=--partition=gpu")
    .option("--config <file>", "a YAML file of the settings of `train-merge train`; options win over it")
    .option(watchOption, watchHelp)
    .option("--json", "print the results as JSON on stdout")
    .addHelpText("after", treeHelp)
    .action(runTree);
}

export function addNode(program: Command): void {
  program
    .command("node <file>")
    .description("run one node of a tree: nodes/<id>/node.json, as `train-merge tree` writes it")
    .addHelpText(
      "after",
      "\nExample:\n  $ train-merge node merged/mini-rte+cb+copa-tree/nodes/rte+cb/node.json",
    )
    .action(runOne);
}
