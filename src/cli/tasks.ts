import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { UserError } from "../errors.js";
import { toText } from "../report/table.js";
import { shippedData } from "../inputs/locate.js";
import { loadTasks, type Task } from "../tasks/registry.js";

function dataText(here: boolean, synthetic: boolean): string {
  if (!here) return "no";
  return synthetic ? "synthetic" : "yes";
}

/** What is said of an example, by the kind of a task without labels. */
const answers: Partial<Record<Task["kind"], string>> = {
  generate: "a text",
  chat: "what the assistant says",
  regression: "a number",
  span: "a part of the text",
};

/** Labels that are listed before the rest is counted. */
const mostListed = 8;

function labelsText({ kind, labels, what }: Task): string {
  const listed = labels?.slice(0, mostListed).join(", ") ?? answers[kind] ?? "the ending's number";
  const more = labels && labels.length > mostListed ? ` … (${labels.length})` : "";
  return [listed + more, what].filter(Boolean).join(" – ");
}

export function addTasks(program: Command): void {
  program
    .command("tasks")
    .description("list the tasks that are known, and which of them a data folder holds")
    .option("--data <folder>", "the data folder (default: the synthetic data that ships)")
    .option("--json", "print them as JSON")
    .addHelpText("after", "\nExample:\n  $ train-merge tasks --data data/text")
    .action(async ({ data = shippedData, json }: { data?: string; json?: boolean }) => {
      if (!existsSync(data)) throw new UserError(`--data ${data}: there is no such folder`);
      const tasks = [...(await loadTasks(data)).values()].map((task) => ({
        ...task,
        here: existsSync(join(data, task.id)) || existsSync(join(data, `${task.id}.npz`)),
      }));
      if (json) {
        process.stdout.write(`${JSON.stringify(tasks, undefined, 2)}\n`);
        return;
      }
      const rows = tasks.map((task) => ({ ...task, labels: labelsText(task) }));
      const width = Math.max(...rows.map(({ labels }) => labels.length));
      const table = {
        head: ["task", "kind", "data", "labels".padEnd(width)],
        body: rows.map(({ id, kind, here, synthetic, labels }) => [
          id,
          kind,
          dataText(here, synthetic),
          labels.padEnd(width),
        ]),
      };
      process.stdout.write(`data: ${data}\n${toText(table).replace(/ +$/gm, "")}\n`);
    });
}
