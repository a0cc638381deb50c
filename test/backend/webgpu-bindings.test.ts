import { beforeEach, expect, test } from "vitest";
import { reuseBindings, type BindingBackend, type BindingDevice } from "../../src/backend/webgpu-bindings.js";
import { BufferPool, type PooledBuffer } from "../../src/backend/webgpu-pool.js";

interface FakeTensor {
  dtype: string;
  values: Float32Array | Int32Array;
  resource?: object | null;
  external?: boolean;
}

let asked: Record<"buffer" | "group" | "layout" | "uniform" | "upload" | "write", number>;
const buffer = (size: number): PooledBuffer => ({ size, usage: 0, destroy() {} });
const tensors = new Map<object, FakeTensor>();

function make() {
  const device: BindingDevice = {
    queue: { writeBuffer: () => void asked.write++ },
    createBuffer({ size }: { size: number }) {
      asked.buffer++;
      return buffer(size);
    },
    createBindGroup() {
      asked.group++;
      return {};
    },
    createComputePipeline: () => ({
      getBindGroupLayout() {
        asked.layout++;
        return {};
      },
    }),
  };
  const backend: BindingBackend = {
    uniformPendingDisposal: [],
    makeUniforms() {
      asked.uniform++;
      const made = { buffer: buffer(16), offset: 0, size: 16 };
      this.uniformPendingDisposal.push(made.buffer);
      return made;
    },
    uploadToGPU: () => void asked.upload++,
    tensorMap: { get: (id) => tensors.get(id)! },
  };
  reuseBindings(backend, device);
  return { backend, device };
}
beforeEach(() => {
  asked = { buffer: 0, group: 0, layout: 0, uniform: 0, upload: 0, write: 0 };
  tensors.clear();
});

const uniform = (...data: number[]) => [{ type: "int32", data }];

test("uniforms of the same contents are one buffer, which is not given back", () => {
  const { backend } = make();
  const first = backend.makeUniforms(uniform(1, 2));
  expect(backend.makeUniforms(uniform(1, 2))).toBe(first);
  expect(backend.makeUniforms(uniform(12))).not.toBe(first);
  expect(backend.makeUniforms([{ type: "float32", data: [1, 2] }])).not.toBe(first);
  expect(asked.uniform).toBe(3);
  expect(backend.uniformPendingDisposal).toEqual([]);
});

test("too many uniforms are given back, after the submission", () => {
  const { backend } = make();
  for (let i = 0; i <= 16_384; i++) backend.makeUniforms(uniform(i));
  expect(backend.uniformPendingDisposal).toHaveLength(16_384);
  expect(asked.uniform).toBe(16_385);
});

test("a group of bindings is made once for its buffers, their places and its layout", () => {
  const { device } = make();
  const [one, two, layout] = [buffer(4), buffer(4), {}];
  const entry = (of: PooledBuffer, offset = 0) => ({
    binding: 0,
    resource: { buffer: of, offset, size: 4 },
  });
  const group = device.createBindGroup({ layout, entries: [entry(one), entry(two)] });
  expect(device.createBindGroup({ layout, entries: [entry(one), entry(two)] })).toBe(group);
  for (const other of [
    { layout, entries: [entry(two), entry(one)] },
    { layout, entries: [entry(one, 4), entry(two)] },
    { layout: {}, entries: [entry(one), entry(two)] },
  ])
    expect(device.createBindGroup(other)).not.toBe(group);
  expect(asked.group).toBe(4);
});

test("a pipeline is asked for its layout once", () => {
  const { device } = make();
  const pipeline = device.createComputePipeline({});
  expect(pipeline.getBindGroupLayout(0)).toBe(pipeline.getBindGroupLayout(0));
  expect(asked.layout).toBe(1);
});

test("single numbers share a buffer; zero and minus zero do not", () => {
  const { backend } = make();
  const upload = (values: FakeTensor["values"], dtype = "float32"): FakeTensor => {
    const id = {};
    const tensor: FakeTensor = { dtype, values };
    tensors.set(id, tensor);
    backend.uploadToGPU(id);
    return tensor;
  };
  const half = upload(Float32Array.of(0.5));
  expect(half.external).toBe(true);
  expect(upload(Float32Array.of(0.5)).resource).toBe(half.resource);
  const [zero, minus] = [upload(Float32Array.of(0)), upload(Float32Array.of(-0))];
  expect(zero.resource).not.toBe(minus.resource);
  expect(asked).toMatchObject({ buffer: 3, write: 3, upload: 0 });
  // What is no single float32 is uploaded as it comes.
  upload(Float32Array.of(1, 2));
  upload(Int32Array.of(1), "int32");
  expect(asked.upload).toBe(2);
  // So are new numbers when there are many; known ones are known.
  for (let i = 0; i < 1100; i++) upload(Float32Array.of(100 + i));
  expect(asked.upload).toBe(2 + 1100 - (1024 - 3));
  expect(upload(Float32Array.of(0.5)).resource).toBe(half.resource);
});

test("steps that ask alike get the same buffers in the same order", () => {
  const pool = new BufferPool(
    { createBuffer: ({ size, usage }) => ({ size, usage, destroy() {} }) },
    2 ** 27,
  );
  const step = (order: readonly number[]) => {
    const taken = [1, 2, 3].map(() => pool.acquireBuffer(4096, 0x80));
    for (const i of order) pool.releaseBuffer(taken[i]!);
    return taken;
  };
  const first = step([1, 0, 2]);
  expect(step([2, 1, 0])).toEqual(first);
  const again = step([0, 1, 2]);
  again.forEach((one, i) => expect(one).toBe(first[i]));
});
