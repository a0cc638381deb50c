/**
 * One engine's side of scripts/bench/step.ts: reads {what, n} on stdin, prints what it measured;
 * torch_step.py is PyTorch's.
 */
import { createInterface } from "node:readline";
import { add, dispose, engine, tidy } from "@tensorflow/tfjs-core";
import { z } from "zod";
import { at } from "../../src/at.js";
import { engineNames, runningOn } from "../../src/backend/index.js";
import { batchLogits } from "../../src/evaluate/evaluate.js";
import { innerProducts } from "../../src/merge/merged.js";
import { applyGate, rowOf, throughGate } from "../../src/merge/table.js";
import { forward } from "../../src/models/index.js";
import { stagesOf, openStage, type StageWeights } from "../../src/stages/stages.js";
import { tokensAPass } from "../../src/tasks/batches.js";
import { adamDefaults, adamW, zeroMoments } from "../../src/train/adamw.js";
import { modelPasses, type StepJob } from "../../src/train/passes.js";
import { jobLosses } from "../../src/train/losses.js";
import type { FirstStep } from "./answers.js";
import { loadJob, startTable } from "./job.js";
import { measureMachine } from "./machine.js";
import { cores } from "./processes.js";

const args = process.argv.slice(2);
const engineName = z.enum(engineNames).parse(args[0]);
const { model, vectors, jobs, step } = await loadJob(args);
const table = applyGate(startTable(vectors), "tanh");
const answer = (value: object) => process.stdout.write(`${JSON.stringify(value)}\n`);
const tokens = jobs.reduce((sum, { batch }) => sum + batch.rows.reduce((n, { ids }) => n + ids.length, 0), 0);

/** Adds up how long each part of a step takes. */
class PartTimes {
  readonly times: Record<string, number> = {};

  async timed<T>(part: string, work: () => T | Promise<T>): Promise<T> {
    const start = performance.now();
    const out = await work();
    this.times[part] = (this.times[part] ?? 0) + performance.now() - start;
    return out;
  }
}

const lossesOf = (weights: StageWeights["weights"], pass: readonly StepJob[]) => {
  const rows = pass.flatMap(({ batch }) => batch.rows);
  return jobLosses(forward(model, weights, rows), pass, "cross-entropy");
};

async function passParts(
  clock: PartTimes,
  pass: readonly StepJob[],
  { weights, changed }: StageWeights,
): Promise<void> {
  const losses = await clock.timed("forward", async () => {
    const all = tidy(() => lossesOf(weights, pass));
    await at(all, -1).data();
    return all;
  });
  dispose(losses);
  const { value, grads } = await clock.timed("backward", async () => {
    const out = engine().gradients(
      () => lossesOf(weights, pass).reduce((a, b) => add(a, b)),
      changed.map(({ tensor }) => tensor),
    );
    await at(out.grads, 0).data();
    return out;
  });
  const products = await clock.timed("products", async () => {
    const requests = changed.map(({ request }) => request);
    const all = await innerProducts(vectors, requests, grads);
    for (const product of all) await product.data();
    return all;
  });
  dispose([value, ...grads, ...products]);
}

/**
 * The parts of a step one after the other, each waited for. Backward is what autodiff takes beyond the
 * forward pass alone.
 */
async function stepParts(): Promise<Record<string, number>> {
  const clock = new PartTimes();
  const opened = await clock.timed("merge", async () => {
    const batch = model.prepare(jobs.flatMap(({ batch: { rows } }) => rows));
    const made = await openStage({ model, vectors, table }, at(stagesOf(model, false), 0), [batch]);
    await at(made.changed, -1).tensor.data();
    return made;
  });
  for (const pass of modelPasses(jobs)) await passParts(clock, pass, opened);
  await clock.timed("optimiser", () =>
    adamW(table, throughGate(table, table, "tanh"), zeroMoments(table.values.length), {
      ...adamDefaults,
      lr: 0.03,
    }),
  );
  opened.dispose();
  const { forward: ahead = 0, backward = 0 } = clock.times;
  return { ...clock.times, backward: backward - ahead };
}

/** Logits of every batch under merged weights, as evaluation takes them. */
async function evaluate(): Promise<void> {
  for await (const { values } of batchLogits({ model, vectors, table }, jobs)) void values;
}

async function timedCalls(work: () => Promise<unknown>, n: number): Promise<object> {
  const start = performance.now();
  for (let i = 0; i < n; i++) await work();
  const ms = (performance.now() - start) / n;
  const peakBytes = process.resourceUsage().maxRSS * 1024;
  return { ms, tokensPerSecond: (1000 * tokens) / ms, peakBytes };
}

async function firstStep(): Promise<FirstStep> {
  const { losses, gradient } = await step();
  const rows = vectors.layers.map(({ id }, layer): [string, number[]] => [id, [...rowOf(gradient, layer)]]);
  const text = runningOn()?.text ?? "";
  return {
    losses,
    gradient: Object.fromEntries(rows),
    runsOn: engineName === "node" ? `${text}, ${cores} threads` : text,
  };
}

const requestSchema = z.object({
  what: z.enum(["step", "parts", "evaluate", "machine"]),
  n: z.number().default(1),
});

const first = await firstStep();
// A second one, as on PyTorch's side, so that nothing is made ready while the clock runs.
await step();
answer(first);
for await (const line of createInterface({ input: process.stdin })) {
  const { what, n } = requestSchema.parse(JSON.parse(line));
  if (what === "parts") answer({ parts: await stepParts() });
  else if (what === "machine")
    answer(await measureMachine(engineName, Math.min(tokens, tokensAPass), model.width));
  else answer(await timedCalls(what === "step" ? step : evaluate, n));
}
process.exit(0);
