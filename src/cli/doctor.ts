import { availableParallelism, freemem, totalmem } from "node:os";
import type { Command } from "commander";
import { version } from "../package.js";

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;

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
        process.stdout.write(`${JSON.stringify({ chosen, engines, machine }, undefined, 2)}\n`);
        return;
      }
      const indent = " ".repeat(12);
      const lines = engines.flatMap(({ name, what, needs, tried, found, detail, problem, mend }) => {
        const first = found
          ? `${name === chosen ? "*" : " "} ${name.padEnd(9)} runs: ${what} (${detail})`
          : `  ${name.padEnd(9)} no: ${problem}`;
        const lacking = found
          ? []
          : [`${indent}needs ${needs}`, ...(mend === undefined ? [] : [`${indent}mend: ${mend}`])];
        return [first, ...lacking, ...(tried === undefined ? [] : [`${indent}run so far ${tried}`])];
      });
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
