/** The training step of one engine, for scripts/bench/step.ts: reads commands on stdin, prints milliseconds. */
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { startEngine, type EngineName } from "../../src/backend/index.js";
import { openFamily, openMember } from "../../src/checkpoint/family.js";
import { applyGate, makeTable, throughGate } from "../../src/merge/table.js";
import { loadTaskVectors } from "../../src/merge/vectors.js";
import { loadHead, readModel } from "../../src/run/prepare.js";
import { adamDefaults, adamW, zeroMoments } from "../../src/train/adamw.js";
import { coefficientGradient, type Job } from "../../src/train/step.js";
import type { PlainBatch } from "./step.js";

const [engine, baseFolder, batchFile, ...experts] = process.argv.slice(2) as [EngineName, string, string, ...string[]];
await startEngine(engine);
const batches = JSON.parse(await readFile(batchFile, "utf8")) as PlainBatch[];
const { family: modelFamily, model } = await readModel(baseFolder);
const family = await openFamily(await openMember("base", baseFolder, modelFamily.canonical), experts.map((expert) => {
  const [task, folder] = expert.split("=") as [string, string];
  return { task, folder };
}), modelFamily.canonical);
const vectors = await loadTaskVectors(family, [...model.parameters.keys()], "tensor");
const jobs: Job[] = [];
for (const [i, { size, length, ids, types, mask, labels, choices }] of batches.entries()) {
  const tokens = { size, length, ids: Int32Array.from(ids), types: Int32Array.from(types), mask: Uint8Array.from(mask) };
  jobs.push({ head: await loadHead(family.experts[i]!, modelFamily.head), batch: { tokens, labels, choices: choices ?? undefined }, weight: 1 });
}

let raw = makeTable(vectors.layers.length, jobs.length, () => 0.30952);
let moments = zeroMoments(raw.values.length);
async function step(): Promise<number[]> {
  const { gradient, losses } = await coefficientGradient(model, vectors, applyGate(raw, "tanh"), jobs, "cross-entropy");
  ({ raw, moments } = adamW(raw, throughGate(gradient, raw, "tanh"), moments, 0.03, adamDefaults));
  return losses;
}
const say = (value: object) => process.stdout.write(`${JSON.stringify(value)}\n`);

say({ losses: await step() });
for await (const line of createInterface({ input: process.stdin })) {
  const start = performance.now();
  for (let i = 0; i < Number(line); i++) await step();
  say({ ms: (performance.now() - start) / Number(line), peak: process.resourceUsage().maxRSS * 1024 });
}
process.exit(0);
