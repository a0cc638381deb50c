#!/usr/bin/env node
import { Command } from "commander";
import { explain, Stopped, UserError, stoppedCode } from "../errors.js";
import { version } from "../package.js";
import { addAdd } from "./add.js";
import { addCompare } from "./compare.js";
import { addDoctor } from "./doctor.js";
import { addFinetune } from "./finetune.js";
import { addMerge } from "./merge.js";
import { addMethods } from "./methods.js";
import { addExport } from "./export.js";
import { addExplain } from "./explain.js";
import { addEvaluate } from "./evaluate.js";
import { addReport } from "./report.js";
import { addReproduce } from "./reproduce.js";
import { addSetup } from "./setup.js";
import { addTasks } from "./tasks.js";
import { addTrain } from "./train.js";
import { addNode, addTree } from "./tree.js";

const program = new Command("train-merge")
  .description("Merge fine-tuned models into one by training a small table of per-layer coefficients.")
  .version(version)
  .option("--debug", "show the stack of an error")
  .addHelpText(
    "after",
    "\n`train-merge train --help` lists every setting. Examples:\n  $ train-merge --tasks " +
      "rte,cb,copa\n  $ train-merge --tasks rte,cb,copa --family minilm --data data/text\n  $ " +
      "train-merge tree --tasks rte,cb,copa\n  $ train-merge merge --method ties --base base " +
      "--experts a b c\n  $ train-merge compare --tasks rte,cb,copa\n  $ train-merge evaluate " +
      "merged/mini-rte+cb+copa",
  )
  .showSuggestionAfterError()
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "train-merge: ")) })
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 1));

for (const add of [
  addTrain,
  addFinetune,
  addMerge,
  addMethods,
  addCompare,
  addTree,
  addNode,
  addAdd,
  addExplain,
  addEvaluate,
  addExport,
  addReport,
  addReproduce,
  addTasks,
  addDoctor,
  addSetup,
])
  add(program);
for (const command of program.commands)
  command.option("--debug", "show the stack of an error").copyInheritedSettings(program);

try {
  await program.parseAsync();
} catch (thrown) {
  const error = explain(thrown);
  const debug = process.argv.includes("--debug");
  const message = error instanceof Error ? error.message : String(error);
  const outOfHeap = /memory access out of bounds|Cannot enlarge memory/.test(message);
  const isUsers = error instanceof UserError || error instanceof RangeError;
  const plain = isUsers ? message : `${message} (a fault of train-merge; --debug shows where)`;
  const line = outOfHeap
    ? "the WASM engine's 4 GiB heap is full; use a smaller --batch-size or --max-length, or the node engine"
    : plain;
  process.stderr.write(debug && error instanceof Error ? `${error.stack}\n` : `train-merge: ${line}\n`);
  process.exit(error instanceof Stopped ? stoppedCode : 1);
}
// The WASM and TensorFlow engines can hold handles that keep the process alive.
process.exit(process.exitCode ?? 0);
