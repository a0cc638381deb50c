import { kebab } from "../errors.js";
import type { Command } from "commander";
import { methods } from "../methods/index.js";
import { acceptedParameters } from "../methods/pipeline.js";
import type { Method, Parameter } from "../methods/types.js";
import { toText } from "../report/table.js";
import { chosenMethod } from "./merge.js";
import { printJson } from "./options.js";

function methodList(): string {
  const body = methods.map((method) => [method.name, method.about]);
  const table = toText({ head: ["method", "what it does"], body }, ["left", "left"]);
  return `${table}\n\n\`train-merge methods NAME\` shows its parameters.\n`;
}

function parameterText(parameter: Parameter): string {
  if (parameter.kind !== "choice") return parameter.about;
  return `${parameter.about}: ${parameter.of.join(", ")}`;
}

function methodText(method: Method): string {
  const body = Object.entries(acceptedParameters(method)).map(([key, parameter]) => [
    `--${kebab(key)}`,
    String(parameter.default),
    parameterText(parameter),
  ]);
  const table = toText({ head: ["parameter", "default", "what it is"], body }, ["left", "left", "left"]);
  return `${method.about}\n\n${table}\n`;
}

export function addMethods(program: Command): void {
  program
    .command("methods [name]")
    .description("list the methods that train nothing, or one with its parameters")
    .option("--json", "print them as JSON")
    .action((name: string | undefined, { json }: { json?: boolean }) => {
      const listed = name === undefined ? methods : [chosenMethod(name, "methods ")];
      if (json)
        printJson(
          listed.map((method) => ({
            name: method.name,
            about: method.about,
            needs: method.needs,
            parameters: acceptedParameters(method),
          })),
        );
      else process.stdout.write(name === undefined ? methodList() : listed.map(methodText).join(""));
    });
}
