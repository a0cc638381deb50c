import { ready, setBackend, version_core } from "@tensorflow/tfjs-core";
import { UserError } from "../errors.js";
import { engines, type Engine, type EngineName } from "./engines.js";
import { registerGradients } from "./gradients.js";

export { engineNames, type EngineName } from "./engines.js";

export interface EngineStatus {
  readonly name: EngineName;
  readonly what: string;
  readonly found: boolean;
  /** Why it cannot be used, in one line; absent where it can. */
  readonly problem?: string;
  readonly mend?: string;
}

async function start(engine: Engine, chosen: boolean): Promise<void> {
  const backend = await engine.load(chosen);
  if (!(await setBackend(backend))) throw new Error("it was loaded but did not start");
  await ready();
  registerGradients();
}

const firstLine = (error: unknown): string => String(error instanceof Error ? error.message : error).split("\n")[0]!;

/**
 * Starts an engine and makes it tfjs's current back end. `auto` takes the first of
 * {@link engineNames} that works here.
 * @throws UserError when the named engine does not start: why, and the line that mends it.
 */
export async function startEngine(choice: EngineName | "auto" = "auto"): Promise<EngineName> {
  const candidates = engines.filter((engine) => choice === "auto" || engine.name === choice);
  let problem = "";
  for (const engine of candidates) {
    try {
      await start(engine, choice !== "auto");
      return engine.name;
    } catch (error) {
      problem = `--backend ${engine.name}: ${firstLine(error)}; to mend it: ${engine.mend}`;
    }
  }
  throw new UserError(problem);
}

/** Tries every engine in turn, the slowest first; the fastest that is found is what `auto` takes, and is left running. */
export async function surveyEngines(): Promise<EngineStatus[]> {
  const statuses: EngineStatus[] = [];
  for (const engine of engines.toReversed()) {
    const { name, what, mend } = engine;
    try {
      await start(engine, false);
      statuses.unshift({ name, what, found: true });
    } catch (error) {
      statuses.unshift({ name, what, found: false, problem: firstLine(error), mend });
    }
  }
  return statuses;
}

export const tfjsVersion = version_core;
