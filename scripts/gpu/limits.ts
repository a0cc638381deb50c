/**
 * One step of the family `wide`, whose tied embedding of 151,936 × 2,048 takes 1.24 GB as float32: its
 * loss and gradient. With TRAIN_MERGE_WEBGPU_LIMITS=default the card binds 128 MiB at most.
 *
 *   node dist/scripts/gpu/limits.js ENGINE wide|wide-small FOLDER
 */
import { engine as tfjs } from "@tensorflow/tfjs-core";
import { startEngine, webgpuCounts, type EngineName } from "../../src/backend/index.js";
import { piecesOf, tensorLimit } from "../../src/merge/vectors.js";
import { openRandom } from "./random-step.js";

const [engine, kind, folder] = process.argv.slice(2) as [EngineName, string, string];
await startEngine(engine);
// On the CPU, for the reference, in small pieces: one product over 311 million entries in float32 is off by 1e-4.
if (engine === "node") Object.assign(tfjs().backend, { tensorLimit: 2 ** 24 });
const decoder = await openRandom(kind, folder);
const before = { ...webgpuCounts() };
const started = performance.now();
const { losses, gradient } = await decoder.step({
  text: [11, 150_000, 77_000, 5, 99_999, 42],
  answers: [
    [17, 300],
    [151_935, 301],
  ],
});
const seconds = (performance.now() - started) / 1000;
const after = webgpuCounts();
const embedding = decoder.vectors.tensors.get("embed_tokens.weight")!;
const answer = {
  limit: tensorLimit(),
  pieces: piecesOf(embedding).length,
  losses,
  gradient,
  seconds,
  ...(after && {
    dispatches: after.dispatches - (before.dispatches ?? 0),
    submissions: after.submissions - (before.submissions ?? 0),
  }),
};
process.stdout.write(`${JSON.stringify(answer)}\n`);
process.exit(0);
