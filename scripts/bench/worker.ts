/**
 * One engine's side of scripts/bench/step.ts: reads {what, n} on stdin, prints what it measured;
 * torch_step.py is PyTorch's.
 */
import { createInterface } from "node:readline";
import { add, dispose, engine, tidy } from "@tensorflow/tfjs-core";
import { applyGate, makeTable, throughGate } from "../../src/merge/table.js";
import { batchLogits } from "../../src/evaluate/evaluate.js";
import { innerProducts } from "../../src/merge/merged.js";
import { forward } from "../../src/models/index.js";
import { stagesOf } from "../../src/stages/stages.js";
import { openStage } from "../../src/stages/weights.js";
import { adamDefaults, adamW, zeroMoments } from "../../src/train/adamw.js";
import { modelPasses, type StepJob } from "../../src/train/passes.js";
import { jobLosses } from "../../src/train/step.js";
import { loadJob } from "./job.js";

const { model, vectors, jobs, step } = await loadJob(process.argv.slice(2) as Parameters<typeof loadJob>[0]);
const table = applyGate(
  makeTable(vectors.layers.length, vectors.experts.length, () => 0.30952),
  "tanh",
);
const say = (value: object) => process.stdout.write(`${JSON.stringify(value)}\n`);
const tokens = jobs.reduce((sum, { batch }) => sum + batch.rows.reduce((n, { ids }) => n + ids.length, 0), 0);

/**
 * The parts of a step one after the other, each waited for. Backward is what autodiff takes beyond the
 * forward pass alone.
 */
async function parts(): Promise<Record<string, number>> {
  const times: Record<string, number> = { merge: 0, forward: 0, backward: 0, products: 0, optimiser: 0 };
  const timed = async <T>(part: string, work: () => T | Promise<T>): Promise<T> => {
    const start = performance.now();
    const out = await work();
    times[part]! += performance.now() - start;
    return out;
  };
  const {
    weights,
    changed,
    dispose: close,
  } = await timed("merge", async () => {
    const made = await openStage({ model, vectors, table }, stagesOf(model, false)[0]!, [
      model.prepare(jobs.flatMap(({ batch }) => batch.rows)),
    ]);
    await made.changed.at(-1)!.tensor.data();
    return made;
  });
  const lossesOf = (pass: readonly StepJob[]) =>
    jobLosses(
      forward(
        model,
        weights,
        pass.flatMap(({ batch }) => batch.rows),
      ),
      pass,
      "cross-entropy",
    );
  for (const pass of modelPasses(jobs)) {
    const losses = await timed("forward", async () => {
      const all = tidy(() => lossesOf(pass));
      await all.at(-1)!.data();
      return all;
    });
    dispose(losses);
    const { value, grads } = await timed("backward", async () => {
      const out = engine().gradients(
        () => lossesOf(pass).reduce((a, b) => add(a, b)),
        changed.map(({ tensor }) => tensor),
      );
      await out.grads[0]!.data();
      return out;
    });
    const products = await timed("products", async () => {
      const all = await innerProducts(
        vectors,
        changed.map(({ request }) => request),
        grads,
      );
      for (const product of all) await product.data();
      return all;
    });
    dispose([value, ...grads, ...products]);
  }
  times["backward"]! -= times["forward"]!;
  await timed("optimiser", () =>
    adamW(table, throughGate(table, table, "tanh"), zeroMoments(table.values.length), {
      ...adamDefaults,
      lr: 0.03,
    }),
  );
  close();
  return times;
}

/** Logits of every batch under merged weights, as evaluation takes them. */
async function evaluate(): Promise<void> {
  for await (const { values } of batchLogits({ model, vectors, table }, jobs)) void values;
}

say({ losses: await step() });
for await (const line of createInterface({ input: process.stdin })) {
  const { what, n } = JSON.parse(line) as { what: "step" | "parts" | "evaluate"; n: number };
  const start = performance.now();
  if (what === "parts") {
    say({ parts: await parts() });
    continue;
  }
  for (let i = 0; i < n; i++) await (what === "step" ? step() : evaluate());
  const ms = (performance.now() - start) / n;
  say({ ms, tokensPerSecond: (1000 * tokens) / ms, peak: process.resourceUsage().maxRSS * 1024 });
}
process.exit(0);
