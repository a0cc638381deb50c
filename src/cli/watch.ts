import { existsSync } from "node:fs";
import type { Command } from "commander";
import { wholeNumber } from "../config/numbers.js";
import { UserError } from "../errors.js";
import { checkedOption } from "./options.js";

/** Option `--watch` of a command that makes a run. */
export const watchOption = "--watch";
export const watchHelp =
  "serve the run's page on this machine while it goes on (train-merge watch does it beside a run)";

/** What a command with `--watch` does when its folder is known: says where the page is. It ends with the process. */
export function watchWhere(
  watch: boolean | undefined,
  note: (message: string) => void,
): (out: string) => Promise<void> {
  let isWatched = watch !== true;
  return async (out) => {
    if (isWatched) return;
    isWatched = true;
    const { watchFolder } = await import("../folder/watch.js");
    const { url } = await watchFolder(out);
    note(`watch it at ${url}`);
  };
}

export function addWatch(program: Command): void {
  program
    .command("watch <folder>")
    .description(
      "serve the page of a run on this machine while it goes on: losses, accuracies, coefficients, and " +
        "what is done of a comparison or a tree; Ctrl-C ends it, and not the run",
    )
    .addOption(checkedOption("--port <n>", "the port (default: one that is free)", wholeNumber(0)))
    .addHelpText(
      "after",
      "\nExamples:\n  $ train-merge watch merged/mini-rte+cb+copa\n  $ train-merge --tasks rte,cb,copa --watch",
    )
    .action(async (folder: string, { port }: { port?: number }) => {
      if (!existsSync(folder)) throw new UserError(`${folder}: there is no such folder`);
      const { watchFolder } = await import("../folder/watch.js");
      const { url } = await watchFolder(folder, port, true);
      process.stdout.write(`${url}\n`);
      await new Promise<void>((done) => {
        for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, done);
      });
    });
}
