import { env, util } from "@tensorflow/tfjs-core";
import { BufferPool, type BufferMaker, type PooledBuffer } from "./webgpu-pool.js";

/** What the card was asked to do since the process began. */
export interface WebgpuCounts {
  /** Programs started. */
  dispatches: number;
  /** Command buffers handed to the card. */
  submissions: number;
  /** Bytes copied from host memory, and to it. */
  uploaded: number;
  downloaded: number;
}

/** The parts of tfjs's WebGPUBackend (4.22.0) that are replaced here. */
export interface TfjsWebgpuBackend {
  bufferManager: BufferPool<PooledBuffer>;
  readonly tensorMap: {
    has(id: object): boolean;
    get(id: object): TensorData;
    delete(id: object): void;
  };
  readonly commandQueueOwnedIds: WeakSet<object>;
  commandEncoder: object | null;
  disposeData(id: object, force?: boolean): boolean;
  releaseResource(id: object): void;
  uploadToGPU(id: object): void;
  recordAndSubmit(...args: unknown[]): void;
  submitQueue(): void;
  endComputePassEncoder(): void;
  getBufferData(buffer: PooledBuffer): Promise<ArrayBuffer>;
  read(id: object): Promise<Values>;
  convertAndCacheOnCPU(id: object, data: Values): Values;
}

/** Numbers of a tensor on the host. */
interface Values {
  readonly length: number;
  subarray(from: number, to: number): Values;
}

interface TensorData {
  readonly dtype: string;
  readonly shape: number[];
  readonly values?: unknown;
  readonly resource?: object | null;
  readonly complexTensorInfos?: unknown;
  refCount: number;
}

/** Host memory that uploads may hold before they are handed to the card. */
const stagedAtMost = 64 * 2 ** 20;

/**
 * Makes tfjs's WebGPU back end record a whole stage before it submits it: a submission happens where a
 * number is read, or where 64 MiB of uploads wait. (As it comes, it submits after every 15 programs.) A
 * tensor that was disposed of gives its buffer to the next one at once, in the same command buffer:
 * WebGPU runs programs in the order in which they were recorded, and buffers that the host writes
 * (uniforms, uploads) are never handed on before the submission.
 * @param limit bytes that one binding may have
 * @returns the counts, which go on
 */
export function recordWholeStages(
  backend: TfjsWebgpuBackend,
  device: BufferMaker<PooledBuffer>,
  limit: number,
): WebgpuCounts {
  const counts: WebgpuCounts = { dispatches: 0, submissions: 0, uploaded: 0, downloaded: 0 };
  let staged = 0;
  const original = {
    disposeData: backend.disposeData.bind(backend),
    uploadToGPU: backend.uploadToGPU.bind(backend),
    recordAndSubmit: backend.recordAndSubmit.bind(backend),
    submitQueue: backend.submitQueue.bind(backend),
    getBufferData: backend.getBufferData.bind(backend),
    read: backend.read.bind(backend),
    convertAndCacheOnCPU: backend.convertAndCacheOnCPU.bind(backend),
  };
  const pool = new BufferPool(device, limit);
  backend.bufferManager = pool;
  env().set("WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE", Number.MAX_SAFE_INTEGER);

  backend.disposeData = (id, force) => {
    // tfjs would keep what the unsubmitted programs use until they are submitted.
    const data = backend.tensorMap.has(id) ? backend.tensorMap.get(id) : undefined;
    if (data && (force === true || data.refCount <= 1) && !data.complexTensorInfos)
      backend.commandQueueOwnedIds.delete(id);
    return original.disposeData(id, force);
  };
  backend.uploadToGPU = (id) => {
    const { resource, values, shape } = backend.tensorMap.get(id);
    original.uploadToGPU(id);
    if (resource || !values) return;
    const bytes = 4 * util.sizeFromShape(shape);
    counts.uploaded += bytes;
    staged += bytes;
  };
  backend.recordAndSubmit = (...args) => {
    original.recordAndSubmit(...args);
    counts.dispatches++;
    if (staged < stagedAtMost || !backend.commandEncoder) return;
    backend.endComputePassEncoder();
    backend.submitQueue();
  };
  backend.submitQueue = () => {
    original.submitQueue();
    counts.submissions++;
    staged = 0;
    pool.submitted();
  };
  backend.getBufferData = async (buffer) => {
    counts.downloaded += buffer.size;
    return original.getBufferData(buffer);
  };
  // A buffer may be larger than its tensor.
  const cut = (data: Values, { shape, dtype }: TensorData): Values => {
    const size = util.sizeFromShape(shape);
    return dtype !== "string" && dtype !== "complex64" && data.length > size ? data.subarray(0, size) : data;
  };
  backend.read = async (id) => {
    // Looked up now: the tensor may be gone when its numbers are there.
    const data = backend.tensorMap.get(id);
    return cut(await original.read(id), data);
  };
  backend.convertAndCacheOnCPU = (id, data) =>
    original.convertAndCacheOnCPU(id, cut(data, backend.tensorMap.get(id)));
  return counts;
}
