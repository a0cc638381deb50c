/**
 * Where a step's time goes on a card: what the host takes to record it, and each program's own time by the card's
 * clock.
 *
 *   node dist/scripts/gpu/programs.js BASE BATCHES.json TASK=EXPERT…
 *
 * BATCHES.json is what scripts/bench/step.js --keep-batches FILE writes. The last line on stdout is JSON.
 */
import { backend } from "@tensorflow/tfjs-core";
import { webgpuCounts } from "../../src/backend/index.js";
import { loadJob } from "../bench/job.js";

/** The parts of WebGPU and of tfjs's WebGPUBackend (4.22.0) that timing programs needs. */
interface QuerySet {
  destroy(): void;
}
interface Buffer {
  mapAsync(mode: number): Promise<void>;
  getMappedRange(): ArrayBuffer;
  destroy(): void;
}
interface Encoder {
  beginComputePass(descriptor: object): object;
  resolveQuerySet(queries: QuerySet, first: number, count: number, buffer: Buffer, offset: number): void;
  copyBufferToBuffer(from: Buffer, fromOffset: number, to: Buffer, toOffset: number, bytes: number): void;
  finish(): object;
}
interface TimingBackend {
  readonly device: {
    readonly features: { has(name: string): boolean };
    readonly queue: { submit(commands: object[]): void };
    createQuerySet(descriptor: object): QuerySet;
    createBuffer(descriptor: object): Buffer;
    createCommandEncoder(): Encoder;
  };
  commandEncoder: Encoder | null;
  computePassEncoder: object | null;
  ensureCommandEncoderReady(): void;
  endComputePassEncoder(): void;
  recordAndSubmit(program: object, output: Shaped, inputs: readonly Shaped[], uniforms: unknown): void;
  submitQueue(): void;
}
interface Shaped {
  readonly shape: readonly number[];
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

/** Queries that one set holds at most, and what buffers of them are used for. */
const queriesInSet = 4096;
const [mapRead, copySource, copyTarget, queryResolve] = [0x1, 0x4, 0x8, 0x200];

const shapeText = ({ shape }: Shaped): string => shape.join("×");

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

/** Nanoseconds by the card's clock, two a program. */
async function readQueries(queries: QuerySet): Promise<BigUint64Array> {
  const bytes = 8 * queriesInSet;
  const resolved = card.device.createBuffer({ size: bytes, usage: queryResolve | copySource });
  const readable = card.device.createBuffer({ size: bytes, usage: mapRead | copyTarget });
  const encoder = card.device.createCommandEncoder();
  encoder.resolveQuerySet(queries, 0, queriesInSet, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, readable, 0, bytes);
  card.device.queue.submit([encoder.finish()]);
  await readable.mapAsync(mapRead);
  const times = new BigUint64Array(readable.getMappedRange().slice(0));
  [resolved, readable, queries].forEach((one) => one.destroy());
  return times;
}

/** A step with each program in a pass of its own, which the card stamps at both ends. */
async function programTimes(): Promise<ProgramTime[]> {
  if (!card.device.features.has("timestamp-query")) return [];
  const labels: string[] = [];
  const sets: QuerySet[] = [];
  const record = card.recordAndSubmit;
  card.recordAndSubmit = (program, output, inputs, uniforms) => {
    const place = (2 * labels.length) % queriesInSet;
    if (place === 0) sets.push(card.device.createQuerySet({ type: "timestamp", count: queriesInSet }));
    card.ensureCommandEncoderReady();
    card.endComputePassEncoder();
    card.computePassEncoder = card.commandEncoder!.beginComputePass({
      timestampWrites: {
        querySet: sets.at(-1)!,
        beginningOfPassWriteIndex: place,
        endOfPassWriteIndex: place + 1,
      },
    });
    labels.push(`${program.constructor.name} ${inputs.map(shapeText).join(" · ")} → ${shapeText(output)}`);
    record.call(card, program, output, inputs, uniforms);
  };
  await step();
  card.recordAndSubmit = record;
  const found = new Map<string, { calls: number; ms: number }>();
  const times = await Promise.all(sets.map(readQueries));
  for (const [i, label] of labels.entries()) {
    const stamps = times[Math.floor((2 * i) / queriesInSet)]!;
    const place = (2 * i) % queriesInSet;
    const entry = found.get(label) ?? { calls: 0, ms: 0 };
    entry.calls++;
    entry.ms += Number(stamps[place + 1]! - stamps[place]!) / 1e6;
    found.set(label, entry);
  }
  return [...found].map(([name, entry]) => ({ name, ...entry })).sort((a, b) => b.ms - a.ms);
}

const runs = [await timedStep(), await timedStep(), await timedStep()].sort((a, b) => a.stepMs - b.stepMs);
const answer: StepPrograms = { ...runs[1]!, programs: await programTimes() };
process.stdout.write(`${JSON.stringify(answer)}\n`);
process.exit(0);
