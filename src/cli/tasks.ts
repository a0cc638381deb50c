import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { toText } from "../report/table.js";
import { shippedData } from "../inputs/locate.js";
import { loadTasks } from "../tasks/registry.js";

function dataText(here: boolean, synthetic: boolean): string {
  if (!here) return "no";
  return synthetic ? "synthetic" : "yes";
}

export function addTasks(program: Command): void {
  program
    .command("tasks")
    .description("list the tasks that are known, and which of them a data folder holds")
    .option("--data <folder>", "the data folder (default: the synthetic data that ships)")
    .option("--json", "print them as JSON")
    .addHelpText("after", "\nExample:\n  $ train-merge tasks --data data/text")
    .action(async ({ data = shippedData, json }: { data?: string; json?: boolean }) => {
      const tasks = [...(await loadTasks(data)).values()].map((task) => ({
        ...task,
        here: existsSync(join(data, task.id)) || existsSync(join(data, `${task.id}.npz`)),
      }));
      if (json) {
        process.stdout.write(`${JSON.stringify(tasks, undefined, 2)}\n`);
        return;
      }
      const body = tasks.map(({ id, kind, labels, here, synthetic, what }) => [
        id,
        kind,
        dataText(here, synthetic),
        `${labels ? labels.join(", ") : "the ending's number"}${what ? ` – ${what}` : ""}`,
      ]);
      const width = Math.max(...body.map((cells) => cells[3]!.length));
      const table = {
        head: ["task", "kind", "data", "labels".padEnd(width)],
        body: body.map((cells) => [...cells.slice(0, 3), cells[3]!.padEnd(width)]),
      };
      process.stdout.write(`data: ${data}\n${toText(table).replace(/ +$/gm, "")}\n`);
    });
}
