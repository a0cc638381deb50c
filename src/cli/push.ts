import type { Command } from "commander";
import { printJson } from "./options.js";
import { startCommand } from "./running.js";

interface PushFlags {
  to: string;
  public?: boolean;
  json?: boolean;
}

export function addPush(program: Command): void {
  program
    .command("push <folder>")
    .description(
      "upload a finished result to the Hugging Face hub: model, card, tasks, coefficients; nothing that names " +
        "places of this machine",
    )
    .requiredOption("--to <org/name>", "the repository; it is made, private, unless it is there")
    .option("--public", "make a new repository that anybody may see")
    .option("--json", "print what was uploaded as JSON")
    .addHelpText(
      "after",
      "\nThe token is that of `hf auth login`, or HF_TOKEN. An upload that breaks off goes on when the command is " +
        "run again.\n\nExample:\n  $ train-merge push merged/mini-rte+cb+copa --to me/my-merge",
    )
    .action(async (folder: string, { to, public: isPublic = false, json }: PushFlags) => {
      const { pushResult } = await import("../run/push.js");
      const job = startCommand();
      const pushed = await pushResult(folder, { repo: to, isPublic }, job);
      job.end();
      if (json) printJson(pushed);
      else {
        const kept = pushed.kept.length > 0 ? `; ${pushed.kept.length} were there already` : "";
        process.stdout.write(`${pushed.url}: ${pushed.uploaded.length} files uploaded${kept}\n`);
      }
    });
}
