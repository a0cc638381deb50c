import { closeSync, openSync, writeSync } from "node:fs";
import type { Slot } from "../checkpoint/write.js";
import { everyMethod } from "../methods/index.js";
import { passesOf, readerFor, treatmentsOf } from "../methods/pipeline.js";
import type { Method } from "../methods/types.js";
import { dtypeBytes, elements, encodeHalves } from "../tensor/dtype.js";
import type { Ref } from "../checkpoint/ref.js";
import type { PlannedTensor } from "./plan.js";
import { openFileReader, readEntries, readerOf, type FileReader } from "./read.js";

/** What a thread is to do with the tensors that it gets hold of: a method's pass over them, or the merge itself. */
export interface Job {
  readonly method: string;
  readonly labels: readonly string[];
  readonly tensors: readonly PlannedTensor[];
  /** What the passes of each stage came to so far. */
  readonly found: readonly unknown[];
  /** Which of the method's passes; undefined merges. */
  readonly pass?: number | undefined;
  /** Where each tensor goes, when they are merged. */
  readonly slots?: readonly Slot[] | undefined;
}

const methodOf = (name: string): Method => everyMethod.find((method) => method.name === name)!;

/** The values that decide which stages there are: the same for every tensor. */
export const valuesOf = (tensors: readonly PlannedTensor[]): PlannedTensor["values"] =>
  tensors.find(({ copy }) => !copy)?.values ?? {};

function copyBytes(
  files: FileReader,
  { path, start, dtype }: Ref,
  size: number,
  write: (bytes: Uint8Array, at: number) => void,
): void {
  const total = size * dtypeBytes[dtype];
  const chunk = new Uint8Array(Math.min(total, 1 << 20));
  for (let at = 0; at < total; at += chunk.length) {
    const piece = chunk.subarray(0, Math.min(chunk.length, total - at));
    files.read(path, piece, start + at);
    write(piece, at);
  }
}

/** Makes one tensor of the result and writes it where it belongs. */
function mergeTensor(
  job: Job,
  tensor: PlannedTensor,
  slot: Slot,
  files: FileReader,
  handles: Map<string, number>,
): void {
  let handle = handles.get(slot.path);
  if (handle === undefined) handles.set(slot.path, (handle = openSync(slot.path, "r+")));
  const write = (bytes: Uint8Array, at: number) => {
    for (let done = 0; done < bytes.length;)
      done += writeSync(handle, bytes, done, bytes.length - done, slot.position + at + done);
  };
  const { dtype, copy, values } = tensor;
  const size = elements(tensor.shape);
  if (copy && copy.dtype === dtype && !copy.adapted) {
    copyBytes(files, copy, size, write);
    return;
  }
  const encode = (entries: Float32Array, from: number) => {
    if (dtype === "F32") {
      write(new Uint8Array(entries.buffer, entries.byteOffset, entries.byteLength), 4 * from);
      return;
    }
    const halves = files.halves(entries.length);
    encodeHalves(entries, dtype as "F16" | "BF16", halves);
    write(new Uint8Array(halves.buffer, halves.byteOffset, halves.byteLength), 2 * from);
  };
  if (copy) {
    const step = 1 << 17;
    for (let from = 0; from < size; from += step) {
      const out = files.floats("out", Math.min(step, size - from));
      readEntries(files, copy, from, out);
      encode(out, from);
    }
    return;
  }
  const method = methodOf(job.method);
  const reader = readerFor(method, values, readerOf(tensor, job.labels, files), job.found);
  const merge = method.merge(reader, values, job.found[treatmentsOf(method, values).length]);
  for (const part of reader.parts()) {
    const out = files.floats("out", part.base.length);
    merge(part, out);
    encode(out, part.start);
  }
}

/**
 * Does a thread's share of a job: takes the number of one tensor after the other until there are none.
 * @returns the thread's state, where the job is a pass
 */
export function workOn(job: Job, next: () => number | undefined, done: (tensor: number) => void): unknown {
  const files = openFileReader();
  const handles = new Map<string, number>();
  const method = methodOf(job.method);
  const passes = passesOf(method, valuesOf(job.tensors));
  const chosen = job.pass === undefined ? undefined : passes[job.pass]!;
  const state = chosen?.pass.start(job.labels.length);
  try {
    for (let at = next(); at !== undefined; at = next()) {
      const tensor = job.tensors[at]!;
      if (!chosen) {
        mergeTensor(job, tensor, job.slots![at]!, files, handles);
      } else if (!tensor.copy) {
        const reader = readerFor(
          method,
          tensor.values,
          readerOf(tensor, job.labels, files),
          job.found,
          chosen.stage,
        );
        chosen.pass.visit(state, reader, tensor.values, job.found[chosen.stage]);
      }
      done(at);
    }
    return state;
  } finally {
    files.close();
    for (const handle of handles.values()) closeSync(handle);
  }
}
