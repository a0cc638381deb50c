/**
 * One step of the family `wide`, whose tied embedding of 151,936 × 2,048 takes 1.24 GB as float32: its
 * loss and gradient. With TRAIN_MERGE_WEBGPU_LIMITS=default the card binds 128 MiB at most.
 *
 *   node dist/scripts/gpu/limits.js ENGINE wide|wide-small FOLDER
 */
import { rowsBatch } from "../rows-batch.js";
import { engine as tfjs } from "@tensorflow/tfjs-core";
import { startEngine, webgpuCounts, type EngineName } from "../../src/backend/index.js";
import { openFamily, openMember } from "../../src/checkpoint/family.js";
import { tensorLimit, loadTaskVectors, piecesOf } from "../../src/merge/vectors.js";
import { columnOf } from "../../src/merge/source.js";
import { applyGate, makeTable } from "../../src/merge/table.js";
import { familyOf } from "../../src/models/index.js";
import { coefficientGradient } from "../../src/train/step.js";
import { kinds, makeFamily } from "./families.js";

const [engine, kind, folder] = process.argv.slice(2) as [EngineName, string, string];
const { base, experts } = await makeFamily(kind, folder);
await startEngine(engine);
// On the CPU, for the reference, in small pieces: one product over 311 million entries in float32 is off by 1e-4.
if (engine === "node") Object.assign(tfjs().backend, { tensorLimit: 2 ** 24 });
const { config } = kinds[kind]!;
const { canonical, build } = familyOf(config, base);
const model = build(config);
const sources = experts.map((expert) => expert.split("=") as [string, string]);
const opened = await openFamily(
  await openMember("base", base, canonical),
  sources.map(([task, place]) => ({ task, folder: place })),
  canonical,
);
const columns = opened.experts.map(columnOf);
const vectors = await loadTaskVectors({ base: opened.base, columns }, [...model.parameters.keys()], {
  tables: model.tables,
});

/** Two answers of two tokens to a text of six. */
const batch = rowsBatch(
  "choose",
  [0, 1].map((answer) => ({
    ids: [11, 150_000, 77_000, 5, 99_999, 42],
    types: [],
    targets: [answer === 0 ? 17 : 151_935, 300 + answer],
  })),
  [0],
);
const table = applyGate(
  makeTable(vectors.layers.length, experts.length, () => 0.3),
  "tanh",
);
const before = { ...webgpuCounts() };
const started = performance.now();
const { losses, gradient } = await coefficientGradient(
  { model, vectors, table },
  [{ head: undefined, weight: 1, batch }],
  "cross-entropy",
);
const seconds = (performance.now() - started) / 1000;
const after = webgpuCounts();
const embedding = vectors.tensors.get("embed_tokens.weight")!;
const answer = {
  limit: tensorLimit(),
  pieces: piecesOf(embedding).length,
  losses,
  gradient: [...gradient.values],
  seconds,
  ...(after && {
    dispatches: after.dispatches - (before.dispatches ?? 0),
    submissions: after.submissions - (before.submissions ?? 0),
  }),
};
process.stdout.write(`${JSON.stringify(answer)}\n`);
process.exit(0);
