import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { engines, type EngineName } from "./engines.js";

export interface EngineStatus {
  readonly name: EngineName;
  readonly what: string;
  readonly needs: string;
  /** Which cards it was run on, and when; absent where it needs none. */
  readonly tried?: string;
  readonly found: boolean;
  /** Whether `auto` would take it: an emulated card it passes over. */
  readonly automatic: boolean;
  /** What was found, in words; absent where it does not run. */
  readonly detail?: string;
  /** Why it cannot be used, in one line; absent where it can. */
  readonly problem?: string;
  readonly mend?: string;
}

/** What probe.ts answers. */
export interface Probe {
  readonly found: boolean;
  readonly automatic: boolean;
  readonly detail?: string;
  readonly problem?: string;
  readonly mend?: string;
}

/** An engine that hangs while it starts is one that does not run. */
const patience = 120_000;

function probe(name: EngineName): Promise<Probe> {
  const program = join(dirname(fileURLToPath(import.meta.url)), "probe.js");
  return new Promise((resolve) => {
    execFile(process.execPath, [program, name], { timeout: patience }, (error, stdout) => {
      const answer = stdout.split("\n").findLast((line) => line.startsWith("{"));
      if (answer !== undefined) return resolve(JSON.parse(answer) as Probe);
      resolve({
        found: false,
        automatic: false,
        problem: error?.killed
          ? "it did not start within two minutes"
          : `its process ended with ${error?.signal ?? error?.code ?? "no answer"}`,
      });
    });
  });
}

/**
 * Tries every engine, each in a process of its own: one that crashes takes nothing with it, and none is
 * left running.
 */
export async function surveyEngines(): Promise<EngineStatus[]> {
  return Promise.all(
    engines.map(async ({ name, what, needs, tried, mend }) => {
      const found = await probe(name);
      return {
        name,
        what,
        needs,
        ...(tried !== undefined && { tried }),
        ...found,
        ...(!found.found && { mend: found.mend ?? mend }),
      };
    }),
  );
}
