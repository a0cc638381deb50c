import type { BufferMaker, PooledBuffer } from "./webgpu-pool.js";

/** A value that a program gets with its tensors. */
interface Uniform {
  readonly type: string;
  data: number[];
}

interface Binding {
  readonly buffer: PooledBuffer;
  readonly offset: number;
  readonly size: number;
}

interface BindGroupDescriptor {
  readonly layout: object;
  readonly entries: readonly { readonly binding: number; readonly resource: Binding }[];
}

interface Pipeline {
  getBindGroupLayout(index: number): object;
}

/** The parts of a WebGPU device that bind buffers to programs. */
export interface BindingDevice extends BufferMaker<PooledBuffer> {
  readonly queue: { writeBuffer(buffer: PooledBuffer, offset: number, data: ArrayBufferView): void };
  createBindGroup(descriptor: BindGroupDescriptor): object;
  createComputePipeline(descriptor: object): Pipeline;
}

/** The parts of tfjs's WebGPUBackend (4.22.0) that do. */
export interface BindingBackend {
  makeUniforms(uniforms: Uniform[]): Binding;
  uniformPendingDisposal: PooledBuffer[];
  uploadToGPU(id: object): void;
  readonly tensorMap: { get(id: object): Constant };
}

/** A tensor, as far as it may be a constant on the host. */
interface Constant {
  readonly dtype: string;
  readonly values?: unknown;
  resource?: object | null;
  /** tfjs does not give its buffer back. */
  external?: boolean;
}

/** Entries of a cache, after which it begins anew: a step has a few thousand programs. */
const mostUniforms = 16_384;
const mostGroups = 32_768;
/** Numbers after which further ones are uploaded as they come. */
const mostConstants = 1024;

/** Numbers objects in the order in which they are first seen. */
function numbering(): (one: object) => number {
  const numbers = new WeakMap<object, number>();
  let next = 0;
  return (one) => {
    const known = numbers.get(one);
    if (known !== undefined) return known;
    numbers.set(one, next);
    return next++;
  };
}

/** Uniforms of the same contents are one buffer, which is written once. */
function reuseUniforms(backend: BindingBackend): void {
  const known = new Map<string, Binding>();
  const makeUniforms = backend.makeUniforms.bind(backend);
  backend.makeUniforms = (uniforms) => {
    const key = uniforms.map(({ type, data }) => `${type} ${data.join(" ")}`).join(",");
    const found = known.get(key);
    if (found) return found;
    if (known.size === mostUniforms) {
      // Recorded programs may still read them: they are free after the submission.
      backend.uniformPendingDisposal.push(...[...known.values()].map(({ buffer }) => buffer));
      known.clear();
    }
    const made = makeUniforms(uniforms);
    backend.uniformPendingDisposal.splice(backend.uniformPendingDisposal.indexOf(made.buffer), 1);
    known.set(key, made);
    return made;
  };
}

/**
 * A program with the same buffers has the same group of bindings. Buffers come round: a step frees and takes them in
 * the order of the step before. (A group of a buffer that was destroyed is never asked for again.)
 */
function reuseGroups(device: BindingDevice): void {
  const known = new Map<string, object>();
  const numberOf = numbering();
  const createBindGroup = device.createBindGroup.bind(device);
  device.createBindGroup = (descriptor) => {
    let key = `${numberOf(descriptor.layout)}`;
    for (const { resource } of descriptor.entries)
      key += ` ${numberOf(resource.buffer)}:${resource.offset}:${resource.size}`;
    const found = known.get(key);
    if (found) return found;
    if (known.size === mostGroups) known.clear();
    const made = createBindGroup(descriptor);
    known.set(key, made);
    return made;
  };
}

/** GPUBufferUsage.STORAGE | COPY_SRC | COPY_DST: what tfjs makes of a tensor's buffer. */
const tensorUsage = 0x80 | 0x4 | 0x8;

/** Factors such as the ½ of a GELU are one buffer each, whoever multiplies by them. */
function reuseConstants(backend: BindingBackend, device: BindingDevice): void {
  const known = new Map<string, PooledBuffer>();
  const uploadToGPU = backend.uploadToGPU.bind(backend);
  const bufferOf = (values: Float32Array): PooledBuffer => {
    const buffer = device.createBuffer({ size: 4, usage: tensorUsage, mappedAtCreation: false });
    device.queue.writeBuffer(buffer, 0, values);
    return buffer;
  };
  /** The buffer that a number has; undefined where it is none of the first ones. */
  const constantOf = (values: Float32Array): PooledBuffer | undefined => {
    const key = Object.is(values[0], -0) ? "-0" : String(values[0]);
    const found = known.get(key);
    if (found || known.size === mostConstants) return found;
    const made = bufferOf(values);
    known.set(key, made);
    return made;
  };
  backend.uploadToGPU = (id) => {
    const data = backend.tensorMap.get(id);
    const { values, dtype, resource } = data;
    const isNumber = values instanceof Float32Array && values.length === 1 && dtype === "float32";
    const constant = isNumber && !resource ? constantOf(values) : undefined;
    if (!constant) {
      uploadToGPU(id);
      return;
    }
    data.resource = constant;
    data.external = true;
  };
}

/** A pipeline's layout is asked for once. */
function keepLayouts(device: BindingDevice): void {
  const createComputePipeline = device.createComputePipeline.bind(device);
  device.createComputePipeline = (descriptor) => {
    const pipeline = createComputePipeline(descriptor);
    const layout = pipeline.getBindGroupLayout(0);
    pipeline.getBindGroupLayout = () => layout;
    return pipeline;
  };
}

/**
 * Spares what tfjs asks of the card anew for every program of every step: buffers of uniforms, groups of bindings,
 * layouts. On a fast card that took longer than the programs.
 */
export function reuseBindings(backend: BindingBackend, device: BindingDevice): void {
  reuseUniforms(backend);
  reuseConstants(backend, device);
  reuseGroups(device);
  keepLayouts(device);
}
