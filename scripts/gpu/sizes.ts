/**
 * Losses and gradients of decoders with one layer of a size of today, on texts of several lengths: engines choose their
 * programs by sizes, and the goldens' are small.
 *
 *   node dist/scripts/gpu/sizes.js ENGINE FOLDER [LONGEST TEXT]
 */
import { join } from "node:path";
import { startEngine, type EngineName } from "../../src/backend/index.js";
import { openRandom, type RandomStep } from "./random-step.js";

const sizeKinds = ["size-llama", "size-qwen3", "size-gemma2"];
const [engine, folder, longest = "600"] = process.argv.slice(2) as [EngineName, string, string?];
/** Tokens of a text. */
const lengths = [5, 120, 600].filter((length) => length <= Number(longest));
await startEngine(engine);
const found: Record<string, RandomStep> = {};
for (const kind of sizeKinds) {
  const decoder = await openRandom(kind, join(folder, kind));
  for (const length of lengths) {
    const text = Array.from({ length }, (_, i) => 3 + ((i * 37) % 990));
    found[`${kind} ${length}`] = await decoder.step({ text, answers: [[17, 300], [999]] });
  }
  await decoder.close();
}
process.stdout.write(`${JSON.stringify(found)}\n`);
process.exit(0);
