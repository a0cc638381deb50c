import { expect, test } from "vitest";
import { BufferPool, roundedSize, type PooledBuffer } from "../../src/backend/webgpu-pool.js";

const storage = 0x80;
const uniform = 0x40;

interface FakeBuffer extends PooledBuffer {
  destroyed: boolean;
}

function makePool(limit = 2 ** 27): { pool: BufferPool<FakeBuffer>; made: FakeBuffer[] } {
  const made: FakeBuffer[] = [];
  const device = {
    createBuffer({ size, usage }: { size: number; usage: number }): FakeBuffer {
      const buffer = { size, usage, destroyed: false, destroy: () => void (buffer.destroyed = true) };
      made.push(buffer);
      return buffer;
    },
  };
  return { pool: new BufferPool(device, limit), made };
}

test("sizes are rounded up by at most a sixteenth, to multiples of 4, and never over the limit", () => {
  for (
    let bytes = 4;
    bytes < 2 ** 26;
    bytes = Math.ceil(bytes * 1.07) + (4 - (Math.ceil(bytes * 1.07) % 4))
  ) {
    const rounded = roundedSize(bytes, 2 ** 27);
    expect(rounded).toBeGreaterThanOrEqual(bytes);
    expect(rounded).toBeLessThanOrEqual(bytes * 1.0625);
    expect(rounded % 4).toBe(0);
    expect(roundedSize(rounded, 2 ** 27)).toBe(rounded);
  }
  expect(roundedSize(100, 2 ** 27)).toBe(100);
  expect(roundedSize(2 ** 27 - 4, 2 ** 27 - 2)).toBe(2 ** 27 - 2);
  // A tensor over the limit is not the pool's to refuse.
  expect(roundedSize(2 ** 28, 2 ** 27)).toBe(2 ** 28);
});

test("a buffer that was released is taken again by a tensor of like size, and by none of another usage", () => {
  const { pool, made } = makePool();
  const first = pool.acquireBuffer(10_000, storage);
  pool.releaseBuffer(first);
  expect(pool.acquireBuffer(first.size, storage)).toBe(first);
  pool.releaseBuffer(first);
  expect(pool.acquireBuffer(first.size, uniform)).not.toBe(first);
  expect(pool.acquireBuffer(20_000, storage)).not.toBe(first);
  expect(made).toHaveLength(3);
});

test("two tensors never hold one buffer", () => {
  const { pool } = makePool();
  const buffers = new Set(Array.from({ length: 10 }, () => pool.acquireBuffer(4096, storage)));
  expect(buffers.size).toBe(10);
  const [one] = buffers;
  pool.releaseBuffer(one!);
  // Released twice, it still is one buffer.
  pool.releaseBuffer(one!);
  expect(pool.acquireBuffer(4096, storage)).toBe(one);
  expect(pool.acquireBuffer(4096, storage)).not.toBe(one);
});

test("what lies idle for more than four submissions is given back", () => {
  const { pool, made } = makePool();
  pool.releaseBuffer(pool.acquireBuffer(8192, storage));
  for (let i = 0; i < 4; i++) pool.submitted();
  expect(made[0]!.destroyed).toBe(false);
  expect(pool.numBytesAllocated).toBe(8192);
  pool.submitted();
  expect(made[0]!.destroyed).toBe(true);
  expect(pool.numBytesAllocated).toBe(0);
  expect(pool.getNumFreeBuffers()).toBe(0);
});

test("batches of a hundred lengths hold what one of them needs, not a hundred times that", () => {
  const { pool } = makePool();
  for (let step = 0; step < 100; step++) {
    const tensors = Array.from({ length: 5 }, (_, i) =>
      pool.acquireBuffer(4 * (100_000 + 97 * step + i), storage),
    );
    tensors.forEach((tensor) => pool.releaseBuffer(tensor));
    pool.submitted();
  }
  expect(pool.peakBytes).toBeLessThan(3 * 5 * 4 * 110_000);
});

test("a staging buffer is of exactly its size, and destroyed when it is released", () => {
  const { pool, made } = makePool();
  const staging = pool.acquireBuffer(10_001, storage, true, false);
  expect(staging.size).toBe(10_001);
  pool.releaseBuffer(staging, false);
  expect(made[0]!.destroyed).toBe(true);
  expect([pool.numBytesUsed, pool.numBytesAllocated]).toEqual([0, 0]);
});
