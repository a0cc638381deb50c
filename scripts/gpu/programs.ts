/**
 * Where a step's time goes on a card: what the host takes to record it, and each program's own time by the card's clock.
 *
 *   node dist/scripts/gpu/programs.js BASE BATCHES.json TASK=EXPERT…
 *
 * BATCHES.json is what scripts/bench/step.js --keep-batches FILE writes. The last line on stdout is JSON.
 */
import { backend } from "@tensorflow/tfjs-core";
import { webgpuCounts } from "../../src/backend/index.js";
import { loadJob } from "../bench/job.js";

/** The parts of tfjs's WebGPUBackend (4.22.0) that time programs and hand them to the card. */
interface TimingBackend {
  activeTimers: { name: string; query: Promise<number> }[] | null;
  runWebGPUProgram(...args: unknown[]): { shape: number[] };
  submitQueue(): void;
}

export interface ProgramTime {
  readonly name: string;
  readonly calls: number;
  readonly ms: number;
}

export interface StepPrograms {
  /** A step as it is trained, and until its (last) submission: the rest is waiting for the card. */
  readonly stepMs: number;
  readonly recordMs: number;
  readonly dispatches: number;
  readonly submissions: number;
  /** By the card's clock, each in a pass of its own. */
  readonly programs: readonly ProgramTime[];
}

const shapesOf = (inputs: unknown): string =>
  (inputs as { shape: number[] }[]).map(({ shape }) => shape.join("×")).join(" · ");

const { step } = await loadJob(["webgpu", ...process.argv.slice(2)]);
const card = backend() as unknown as TimingBackend;
for (let i = 0; i < 2; i++) await step();

async function timedStep(): Promise<Omit<StepPrograms, "programs">> {
  const before = { ...webgpuCounts()! };
  const submitQueue = card.submitQueue;
  const started = performance.now();
  let submitted = started;
  card.submitQueue = () => {
    submitQueue.call(card);
    submitted = performance.now();
  };
  await step();
  card.submitQueue = submitQueue;
  const after = webgpuCounts()!;
  return {
    stepMs: performance.now() - started,
    recordMs: submitted - started,
    dispatches: after.dispatches - before.dispatches,
    submissions: after.submissions - before.submissions,
  };
}

async function programTimes(): Promise<ProgramTime[]> {
  const labels: string[] = [];
  const run = card.runWebGPUProgram;
  card.runWebGPUProgram = (...args) => {
    const timers = card.activeTimers?.length ?? 0;
    const out = run.apply(card, args);
    const timed = (card.activeTimers?.length ?? 0) > timers;
    if (timed)
      labels.push(`${card.activeTimers!.at(-1)!.name} ${shapesOf(args[1])} → ${out.shape.join("×")}`);
    return out;
  };
  const timers: NonNullable<TimingBackend["activeTimers"]> = [];
  card.activeTimers = timers;
  await step();
  card.activeTimers = null;
  card.runWebGPUProgram = run;
  const times = await Promise.all(timers.map(({ query }) => query));
  const found = new Map<string, { calls: number; ms: number }>();
  for (const [i, ms] of times.entries()) {
    const entry = found.get(labels[i]!) ?? { calls: 0, ms: 0 };
    entry.calls++;
    entry.ms += ms;
    found.set(labels[i]!, entry);
  }
  return [...found].map(([name, entry]) => ({ name, ...entry })).sort((a, b) => b.ms - a.ms);
}

const runs = [await timedStep(), await timedStep(), await timedStep()].sort((a, b) => a.stepMs - b.stepMs);
const answer: StepPrograms = { ...runs[1]!, programs: await programTimes() };
process.stdout.write(`${JSON.stringify(answer)}\n`);
process.exit(0);
