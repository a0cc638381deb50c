import { availableParallelism, freemem, totalmem } from "node:os";
import type { Command } from "commander";
import type { EngineStatus } from "../backend/index.js";
import { version } from "../package.js";
import { printJson } from "./options.js";

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;

/** An engine: whether it runs, and if not, what it needs. */
function engineLines(
  { name, what, needs, tried, found, detail, problem, mend }: EngineStatus,
  isChosen: boolean,
): string[] {
  const indent = " ".repeat(12);
  const lines: string[] = [];
  if (found) lines.push(`${isChosen ? "*" : " "} ${name.padEnd(9)} runs: ${what} (${detail})`);
  else lines.push(`  ${name.padEnd(9)} no: ${problem}`, `${indent}needs ${needs}`);
  if (!found && mend !== undefined) lines.push(`${indent}mend: ${mend}`);
  if (tried !== undefined) lines.push(`${indent}run so far ${tried}`);
  return lines;
}

export function addDoctor(program: Command): void {
  program
    .command("doctor")
    .description("say which engines run here, which one is taken and why, and what would mend the others")
    .option("--json", "print it as JSON")
    .action(async ({ json }: { json?: boolean }) => {
      const { surveyEngines, tfjsVersion } = await import("../backend/index.js");
      const engines = await surveyEngines();
      const chosen = engines.find(({ found, automatic }) => found && automatic)?.name;
      const machine = {
        "train-merge": version,
        tfjs: tfjsVersion,
        node: process.version,
        platform: `${process.platform}-${process.arch}`,
        cores: availableParallelism(),
        memoryBytes: totalmem(),
        freeBytes: freemem(),
      };
      if (json) {
        printJson({ chosen, engines, machine });
        return;
      }
      const lines = engines.flatMap((engine) => engineLines(engine, engine.name === chosen));
      process.stdout.write(
        [
          `train-merge ${version}, tfjs ${tfjsVersion}, Node ${process.version}, ${machine.platform}`,
          `${machine.cores} cores, ${gigabytes(machine.memoryBytes)} memory, ${gigabytes(machine.freeBytes)} free`,
          "",
          "engines, the fastest first (auto takes the first that runs, marked *):",
          ...lines,
          "",
        ].join("\n"),
      );
    });
}
