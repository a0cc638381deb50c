/**
 * Starts the engine named on the command line, computes once and says how it went: survey.ts runs this
 * as a process.
 */
import { matMul, tensor2d } from "@tensorflow/tfjs-core";
import { EngineProblem } from "./engine.js";
import { engineNamed, type EngineName } from "./engines.js";
import { reasonOf, startNamed } from "./index.js";
import type { ProbeAnswer } from "./survey.js";

const without = (problem: string): ProbeAnswer => ({ found: false, automatic: false, problem });

async function probe(name: EngineName): Promise<ProbeAnswer> {
  try {
    const detail = await startNamed(name, true);
    const product = await matMul(tensor2d([[1, 2]]), tensor2d([[3], [4]])).data();
    if (product[0] !== 11) return without(`it says that 1 · 3 + 2 · 4 is ${product[0]}`);
    return { found: true, automatic: !detail.emulated, detail: detail.text };
  } catch (error) {
    return { ...without(reasonOf(error)), ...(error instanceof EngineProblem && { mend: error.mend }) };
  }
}

const { name } = engineNamed(process.argv[2] ?? "");
process.stdout.write(`${JSON.stringify(await probe(name))}\n`);
process.exit(0);
