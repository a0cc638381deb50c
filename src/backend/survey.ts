import { execFile, type ExecFileException } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { engines, type EngineName } from "./engines.js";

/** What probe.ts answers of an engine. */
const probeAnswer = z.object({
  found: z.boolean(),
  /** Whether `auto` would take it: an emulated card it passes over. */
  automatic: z.boolean(),
  /** What was found, in words; absent where it does not run. */
  detail: z.string().optional(),
  /** Why it cannot be used, in one line; absent where it can. */
  problem: z.string().optional(),
  mend: z.string().optional(),
});
export type ProbeAnswer = Readonly<z.infer<typeof probeAnswer>>;

export interface EngineStatus extends ProbeAnswer {
  readonly name: EngineName;
  readonly what: string;
  readonly needs: string;
  /** Which cards it was run on, and when; absent where it needs none. */
  readonly tried?: string;
}

/** An engine that hangs while it starts is one that does not run. */
const patience = 120_000;

/** Why a process gave no answer. */
function whySilent(error: ExecFileException | null): string {
  if (error?.killed) return "it did not start within two minutes";
  return `its process ended with ${error?.signal ?? error?.code ?? "no answer"}`;
}

function probeInProcess(name: EngineName): Promise<ProbeAnswer> {
  const program = join(dirname(fileURLToPath(import.meta.url)), "probe.js");
  return new Promise((resolve) => {
    execFile(process.execPath, [program, name], { timeout: patience }, (error, stdout) => {
      const answer = stdout.split("\n").findLast((line) => line.startsWith("{"));
      if (answer !== undefined) return resolve(probeAnswer.parse(JSON.parse(answer)));
      resolve({ found: false, automatic: false, problem: whySilent(error) });
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
      const answer = await probeInProcess(name);
      return {
        name,
        what,
        needs,
        ...(tried !== undefined && { tried }),
        ...answer,
        ...(!answer.found && { mend: answer.mend ?? mend }),
      };
    }),
  );
}
