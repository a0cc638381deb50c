#!/usr/bin/env node
import { Command, CommanderError } from "commander";
import {
  explain,
  messageOf,
  safeLine,
  Stopped,
  stoppedCode,
  UsageError,
  usageCode,
  UserError,
} from "../errors.js";
import { nearest } from "../nearest.js";
import { version } from "../package.js";

/** Every command: what adds it to the program, loaded when it is asked for. In the order of the help. */
const commands = new Map<string, () => Promise<(program: Command) => void>>([
  ["train", async () => (await import("./train.js")).addTrain],
  ["init", async () => (await import("./init.js")).addInit],
  ["finetune", async () => (await import("./finetune.js")).addFinetune],
  ["merge", async () => (await import("./merge.js")).addMerge],
  ["methods", async () => (await import("./methods.js")).addMethods],
  ["compare", async () => (await import("./compare.js")).addCompare],
  ["tree", async () => (await import("./tree.js")).addTree],
  ["node", async () => (await import("./tree.js")).addNode],
  ["add", async () => (await import("./add.js")).addAdd],
  ["explain", async () => (await import("./explain.js")).addExplain],
  ["evaluate", async () => (await import("./evaluate.js")).addEvaluate],
  ["export", async () => (await import("./export.js")).addExport],
  ["push", async () => (await import("./push.js")).addPush],
  ["watch", async () => (await import("./watch.js")).addWatch],
  ["report", async () => (await import("./report.js")).addReport],
  ["verify", async () => (await import("./verify.js")).addVerify],
  ["reproduce", async () => (await import("./reproduce.js")).addReproduce],
  ["tasks", async () => (await import("./tasks.js")).addTasks],
  ["prompts", async () => (await import("./prompts.js")).addPrompts],
  ["doctor", async () => (await import("./doctor.js")).addDoctor],
  ["setup", async () => (await import("./setup.js")).addSetup],
]);

/** The commands that a command line may mean: one that it names, train for options alone, else all (for the help). */
function meantCommands(words: readonly string[]): string[] {
  const [first = "--help"] = words.filter((word) => word !== "--debug");
  if (commands.has(first)) return [first];
  if (first.startsWith("--") && first !== "--help" && first !== "--version") return ["train"];
  return [...commands.keys()];
}

/** @throws UsageError where a first word is no command: the default one takes options alone */
function checkCommand([first = ""]: readonly string[]): void {
  if (first === "" || first.startsWith("-") || first === "help" || commands.has(first)) return;
  throw new UsageError(
    `there is no command "${first}"${nearest(first, commands.keys())}; train-merge --help lists them`,
  );
}

/** An error in one line: what the user can mend, or that it is a fault of ours. */
function lineOf(error: unknown): string {
  const message = messageOf(error);
  if (/memory access out of bounds|Cannot enlarge memory/.test(message))
    return "the WASM engine's 4 GiB heap is full; use a smaller --batch-size or --max-length, or the node engine";
  if (/Maximum call stack size exceeded/.test(message))
    return "an input is nested too deeply (--debug shows where)";
  if (error instanceof UserError || error instanceof RangeError) return message;
  return `${message} (a fault of train-merge; --debug shows where)`;
}

const program = new Command("train-merge")
  .description("Merge fine-tuned models into one by training a small table of per-layer coefficients.")
  .version(version)
  .option("--debug", "show the stack of an error")
  .addHelpText(
    "after",
    "\n`train-merge train --help all` lists every setting. Examples:\n  $ train-merge --tasks " +
      "rte,cb,copa\n  $ train-merge --tasks rte,cb,copa --family minilm --data data/text\n  $ " +
      "train-merge tree --tasks rte,cb,copa\n  $ train-merge merge --method ties --base base " +
      "--experts a b c\n  $ train-merge compare --tasks rte,cb,copa\n  $ train-merge evaluate " +
      "merged/mini-rte+cb+copa",
  )
  .showSuggestionAfterError()
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "train-merge: ")) })
  .exitOverride();

for (const name of meantCommands(process.argv.slice(2))) {
  const load = commands.get(name);
  if (load) (await load())(program);
}
for (const command of program.commands)
  command.option("--debug", "show the stack of an error").copyInheritedSettings(program);

// What is asked for goes to stdout: where nobody takes it (a full disk, a closed pipe), the command has failed.
process.stdout.on("error", (error) => {
  process.stderr.write(`train-merge: stdout: ${safeLine(messageOf(explain(error)))}\n`);
  process.exit(1);
});
const flushed = (): Promise<void> => new Promise((resolve) => process.stdout.write("", () => resolve()));

try {
  checkCommand(process.argv.slice(2));
  await program.parseAsync();
  await flushed();
} catch (thrown) {
  // Commander has said what there is to say: a help, a version, what is wrong with the options.
  if (thrown instanceof CommanderError) {
    await flushed();
    process.exit(thrown.exitCode && usageCode);
  }
  const error = explain(thrown);
  if (process.argv.includes("--debug") && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  else process.stderr.write(`train-merge: ${safeLine(lineOf(error))}\n`);
  if (error instanceof Stopped) process.exit(stoppedCode);
  if (error instanceof UsageError) process.exit(usageCode);
  process.exit(1);
}
// The WASM and TensorFlow engines can hold handles that keep the process alive.
process.exit(process.exitCode ?? 0);
