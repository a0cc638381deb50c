import { closeSync, openSync, writeSync } from "node:fs";
import { at } from "../at.js";
import { firstNotFinite, refuseWorthless } from "../checkpoint/numbers.js";
import type { Slot } from "../checkpoint/write.js";
import { findMethod } from "../methods/index.js";
import { mergeFor, surveyPasses, readerFor } from "../methods/pipeline.js";
import { encodeHalves } from "../halves.js";
import { rowShape, dtypeBytes, elements, type FloatDType } from "../tensor/dtype.js";
import type { Ref } from "../checkpoint/safetensors.js";
import { plannedReader } from "./parts.js";
import type { PlannedTensor } from "./plan.js";
import { asBytes, halfOf, openFileReader, readEntries, type FileReader } from "./read.js";

/** What a thread is to do with the tensors that it gets hold of: a method's pass over them, or the merge itself. */
export interface DiskJob {
  readonly method: string;
  readonly labels: readonly string[];
  readonly tensors: readonly PlannedTensor[];
  /** What the passes of each stage came to so far. */
  readonly found: readonly unknown[];
  /** Which of the method's passes; undefined merges. */
  readonly pass?: number | undefined;
  /** Where each tensor goes, when they are merged: of every result. */
  readonly slots?: readonly (readonly Slot[])[] | undefined;
}

/** The values that decide which stages there are: the same for every tensor. */
export const stageValues = (tensors: readonly PlannedTensor[]): PlannedTensor["values"] =>
  tensors.find(({ copy }) => !copy)?.values ?? {};

/** Writes bytes of a tensor of the result, from so many bytes after its start. */
type Write = (bytes: Uint8Array, at: number) => void;

/** Where a tensor of the result is written; its file stays open. */
function writerAt(slot: Slot, handles: Map<string, number>): Write {
  const handle = handles.get(slot.path) ?? openSync(slot.path, "r+");
  handles.set(slot.path, handle);
  return (bytes, at) => {
    for (let done = 0; done < bytes.length;)
      done += writeSync(handle, bytes, done, bytes.length - done, slot.position + at + done);
  };
}

/** Copies a tensor's bytes as they are. */
function copyBytes(files: FileReader, { path, start, dtype }: Ref, size: number, write: Write): void {
  const total = size * dtypeBytes[dtype];
  const chunk = new Uint8Array(Math.min(total, 1 << 20));
  for (let at = 0; at < total; at += chunk.length) {
    const piece = chunk.subarray(0, Math.min(chunk.length, total - at));
    files.read(path, piece, start + at);
    write(piece, at);
  }
}

/** Entries of the result on their way to the file. */
interface Entries {
  readonly values: Float32Array;
  /** The number of the first. */
  readonly from: number;
  /** What is infinite by design, by place. */
  readonly infinite?: ReadonlyMap<number, number> | undefined;
}

/** Puts back what is infinite by design; anything else must be a number that the type can hold. */
function checkEntries(name: string, dtype: FloatDType, { values, from, infinite }: Entries): void {
  refuseWorthless(name, dtype, values, from);
  for (const [i, value] of infinite ?? []) values[i] = value;
}

/** Takes what is infinite out of entries that are only copied: a mask, or what the model has always had. */
function takeCopied(values: Float32Array): ReadonlyMap<number, number> | undefined {
  if (firstNotFinite(values) < 0) return undefined;
  const taken = new Map([...values.entries()].filter(([, value]) => !Number.isFinite(value)));
  for (const i of taken.keys()) values[i] = 0;
  return taken;
}

/** Checks entries of the result, encodes and writes them. */
function writeEntries(
  files: FileReader,
  { name, dtype }: PlannedTensor,
  write: Write,
): (entries: Entries) => void {
  if (dtype === "F32")
    return (entries) => {
      checkEntries(name, dtype, entries);
      write(asBytes(entries.values), 4 * entries.from);
    };
  const half = halfOf(dtype);
  return (entries) => {
    const { values, from } = entries;
    checkEntries(name, half, entries);
    const halves = files.halves(values.length);
    encodeHalves(values, half, halves);
    write(asBytes(halves), 2 * from);
  };
}

/** Takes one tensor over as it is, into every result. */
function copyTensor(
  files: FileReader,
  tensor: PlannedTensor & { readonly copy: Ref },
  writes: readonly Write[],
): void {
  const { dtype, copy } = tensor;
  const size = elements(tensor.shape);
  for (const write of writes) {
    if (copy.dtype === dtype && !copy.adapted && !copy.packed && !copy.moved) {
      copyBytes(files, copy, size, write);
      continue;
    }
    const encode = writeEntries(files, tensor, write);
    // Whole rows: what an adapter does may need them.
    const { width } = rowShape(tensor.shape, size);
    const step = Math.max(1, Math.floor((1 << 17) / Math.max(1, width))) * Math.max(1, width);
    for (let from = 0; from < size; from += step) {
      const out = files.floats("out", Math.min(step, size - from));
      readEntries(files, copy, from, out);
      encode({ values: out, from, infinite: takeCopied(out) });
    }
  }
}

/** Makes one tensor of every result and writes it where it belongs. */
function makeTensor(job: DiskJob, tensor: PlannedTensor, files: FileReader, writes: readonly Write[]): void {
  const { copy, values } = tensor;
  if (copy) {
    copyTensor(files, { ...tensor, copy }, writes);
    return;
  }
  const method = findMethod(job.method);
  const reader = readerFor(method, values, plannedReader(tensor, job.labels, files), { found: job.found });
  const merge = mergeFor(method, values, reader, { found: job.found, results: writes.length });
  const encoders = writes.map((write) => writeEntries(files, tensor, write));
  for (const part of reader.parts()) {
    const outs = writes.map((_, i) => files.floats(`out ${i}`, part.base.length));
    merge(part, outs);
    for (const [i, encode] of encoders.entries())
      encode({ values: at(outs, i), from: part.start, infinite: part.infinite });
  }
}

/** What is done with each tensor, and what it adds up to. */
interface Work {
  readonly state: unknown;
  visit(tensor: PlannedTensor, place: number): void;
}

/** Makes the tensors of the result. */
function merging(job: DiskJob, files: FileReader, handles: Map<string, number>): Work {
  const { slots = [] } = job;
  return {
    state: undefined,
    visit(tensor, place) {
      const writes = slots.map((result) => writerAt(at(result, place), handles));
      makeTensor(job, tensor, files, writes);
    },
  };
}

/** Goes over the tensors for one of the method's passes. */
function surveying(job: DiskJob, files: FileReader, number: number): Work {
  const method = findMethod(job.method);
  const { pass, stage } = at(surveyPasses(method, stageValues(job.tensors)), number);
  const state = pass.start(job.labels.length);
  return {
    state,
    visit(tensor) {
      if (tensor.copy) return;
      const own = plannedReader(tensor, job.labels, files);
      const reader = readerFor(method, tensor.values, own, { found: job.found, upTo: stage });
      pass.visit(state, reader, tensor.values, job.found[stage]);
    },
  };
}

/**
 * Does a thread's share of a job: takes the number of one tensor after the other until there are none.
 * @returns the thread's state, where the job is a pass
 */
export function workOn(
  job: DiskJob,
  next: () => number | undefined,
  done: (tensor: number) => void,
): unknown {
  const files = openFileReader();
  const handles = new Map<string, number>();
  try {
    const { state, visit } =
      job.pass === undefined ? merging(job, files, handles) : surveying(job, files, job.pass);
    for (let place = next(); place !== undefined; place = next()) {
      visit(at(job.tensors, place), place);
      done(place);
    }
    return state;
  } finally {
    files.close();
    for (const handle of handles.values()) closeSync(handle);
  }
}
