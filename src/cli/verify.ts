import type { Command } from "commander";
import { printJson } from "./options.js";

const marks = { true: "ok", false: "WRONG", undefined: "not looked at" } as const;

async function runVerify(folder: string, { all, json }: { all?: boolean; json?: boolean }): Promise<void> {
  const { verify } = await import("../run/verify.js");
  const checks = await verify(folder, { all });
  if (json) printJson(checks);
  else
    for (const { what, ok, detail } of checks)
      process.stdout.write(`${what}: ${marks[`${ok}`]} (${detail})\n`);
  // Numbers that are finite say nothing of whether they are right.
  const isKnown = checks.some(({ what, ok }) => ok && what !== "numbers");
  if (!isKnown || checks.some(({ ok }) => ok === false)) process.exitCode = 1;
}

export function addVerify(program: Command): void {
  program
    .command("verify <folder>")
    .description(
      "look at a finished merge anew: its inputs' hashes, every tensor's name, shape and numbers, and a sample of " +
        "the numbers worked out again from the inputs",
    )
    .option("--all", "work out every number again, and not a sample of each tensor")
    .option("--json", "print the checks as JSON")
    .addHelpText(
      "after",
      "\nExample:\n  $ train-merge verify merged/mini-rte+cb+copa      exit code 1 where something is wrong",
    )
    .action(runVerify);
}
