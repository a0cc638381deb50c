import { at } from "../at.js";

/** A WebGPU buffer, as far as the pool looks at it. */
export interface PooledBuffer {
  readonly size: number;
  readonly usage: number;
  destroy(): void;
}

/** What makes buffers: a WebGPU device. */
export interface BufferMaker<B> {
  createBuffer(descriptor: { size: number; usage: number; mappedAtCreation: boolean }): B;
}

/** GPUBufferUsage.STORAGE: the buffers that hold tensors. */
const storage = 0x80;

/** Sizes from here on are rounded up, so that tensors of like sizes can take each other's buffers. */
const roundedFrom = 4096;

/** A free buffer that was not taken again in so many submissions is given back to the card. */
const submissionsKept = 4;

/** The next of 16 sizes between two powers of two: at most 6.25 % more, and never more than `limit`. */
export function roundedSize(bytes: number, limit: number): number {
  if (bytes < roundedFrom) return bytes;
  const step = 2 ** (Math.ceil(Math.log2(bytes)) - 5);
  return Math.max(bytes, Math.min(limit, Math.ceil(bytes / step) * step));
}

interface Idle<B> {
  readonly buffer: B;
  /** Buffers are numbered as they are made. */
  readonly number: number;
  readonly since: number;
}

/**
 * Takes the oldest buffer off a shelf: steps that ask alike get the same buffers in the same order, and groups of
 * bindings (webgpu-bindings.ts) serve again.
 */
function takeFirst<B>(shelf: Idle<B>[] | undefined): Idle<B> | undefined {
  if (!shelf || shelf.length === 0) return undefined;
  let first = 0;
  for (const [i, { number }] of shelf.entries()) if (number < at(shelf, first).number) first = i;
  const taken = shelf[first];
  const last = shelf.pop();
  if (last && last !== taken) shelf[first] = last;
  return taken;
}

/**
 * Buffers of a WebGPU device, used again. It takes the place of tfjs's own BufferManager, which looks for a buffer of
 * exactly the same size and never gives one back: batches of many lengths would fill the card. Here sizes are rounded
 * and what lies idle is destroyed.
 */
export class BufferPool<B extends PooledBuffer> {
  /** Bytes that the caller holds, and bytes that the card holds for it: what tfjs's memory() shows. */
  numBytesUsed = 0;
  numBytesAllocated = 0;
  /** The highest numBytesAllocated so far. */
  peakBytes = 0;
  private submissions = 0;
  private made = 0;
  private readonly numbers = new WeakMap<B, number>();
  private readonly free = new Map<string, Idle<B>[]>();
  private readonly used = new Set<B>();

  /** @param limit bytes that one binding may have */
  constructor(
    private readonly device: BufferMaker<B>,
    private readonly limit: number,
  ) {}

  /**
   * A buffer of at least `size` bytes.
   * @param reuse false: a new one of exactly `size` bytes
   */
  acquireBuffer(size: number, usage: number, mappedAtCreation = false, reuse = true): B {
    if (!reuse) return this.hold(this.make(size, usage, mappedAtCreation));
    const bytes = usage & storage ? roundedSize(size, this.limit) : size;
    const idle = takeFirst(this.free.get(`${bytes} ${usage}`));
    return this.hold(idle?.buffer ?? this.make(bytes, usage, mappedAtCreation));
  }

  /** @param reuse false: it is destroyed */
  releaseBuffer(buffer: B, reuse = true): void {
    // After dispose() tfjs still hands in what it holds.
    if (!this.used.delete(buffer)) return;
    this.numBytesUsed -= buffer.size;
    if (!reuse) {
      this.drop(buffer);
      return;
    }
    const key = `${buffer.size} ${buffer.usage}`;
    const shelf = this.free.get(key) ?? [];
    shelf.push({ buffer, number: this.numbers.get(buffer) ?? 0, since: this.submissions });
    this.free.set(key, shelf);
  }

  /** To be called after a submission: destroys what has been idle for some of them. */
  submitted(): void {
    this.submissions++;
    for (const [key, shelf] of this.free) {
      const recent = shelf.filter(({ since }) => this.submissions - since <= submissionsKept);
      for (const idle of shelf) if (!recent.includes(idle)) this.drop(idle.buffer);
      if (recent.length === 0) this.free.delete(key);
      else this.free.set(key, recent);
    }
  }

  getNumUsedBuffers(): number {
    return this.used.size;
  }

  getNumFreeBuffers(): number {
    return [...this.free.values()].reduce((count, shelf) => count + shelf.length, 0);
  }

  dispose(): void {
    for (const shelf of this.free.values()) shelf.forEach(({ buffer }) => this.drop(buffer));
    this.used.forEach((buffer) => this.drop(buffer));
    this.free.clear();
    this.used.clear();
    this.numBytesUsed = 0;
  }

  private hold(buffer: B): B {
    this.used.add(buffer);
    this.numBytesUsed += buffer.size;
    return buffer;
  }

  private make(size: number, usage: number, mappedAtCreation: boolean): B {
    const buffer = this.device.createBuffer({ size, usage, mappedAtCreation });
    this.numbers.set(buffer, this.made++);
    this.numBytesAllocated += size;
    this.peakBytes = Math.max(this.peakBytes, this.numBytesAllocated);
    return buffer;
  }

  private drop(buffer: B): void {
    this.numBytesAllocated -= buffer.size;
    buffer.destroy();
  }
}
