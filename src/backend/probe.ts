/**
 * Starts the engine named on the command line, computes once and says how it went: survey.ts runs this
 * as a process.
 */
import { matMul, tensor2d } from "@tensorflow/tfjs-core";
import { EngineProblem, type EngineName } from "./engines.js";
import { startNamed } from "./index.js";
import type { Probe } from "./survey.js";

async function probe(name: EngineName): Promise<Probe> {
  try {
    const detail = await startNamed(name, true);
    const product = await matMul(tensor2d([[1, 2]]), tensor2d([[3], [4]])).data();
    if (product[0] !== 11)
      return { found: false, automatic: false, problem: `it says that 1 · 3 + 2 · 4 is ${product[0]}` };
    return { found: true, automatic: !detail.emulated, detail: detail.text };
  } catch (error) {
    const problem = (error instanceof Error ? error.message : String(error)).split("\n")[0]!;
    return {
      found: false,
      automatic: false,
      problem,
      ...(error instanceof EngineProblem && { mend: error.mend }),
    };
  }
}

process.stdout.write(`${JSON.stringify(await probe(process.argv[2] as EngineName))}\n`);
process.exit(0);
