import { env, util } from "@tensorflow/tfjs-core";
import { reuseBindings, type BindingBackend, type BindingDevice } from "./webgpu-bindings.js";
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
export interface TfjsWebgpuBackend extends BindingBackend {
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
  read(id: object): Promise<HostValues>;
  convertAndCacheOnCPU(id: object, data: HostValues): HostValues;
}

/** Numbers of a tensor on the host. */
interface HostValues {
  readonly length: number;
  subarray(from: number, to: number): HostValues;
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
 * A tensor that was disposed of gives its buffer to the next one at once, in the same command buffer: WebGPU runs
 * programs in the order in which they were recorded, and buffers that the host writes (uniforms, uploads) are never
 * handed on before the submission. tfjs would keep what the unsubmitted programs use until they are submitted.
 */
function releaseAtOnce(backend: TfjsWebgpuBackend): void {
  const disposeData = backend.disposeData.bind(backend);
  backend.disposeData = (id, force) => {
    if (backend.tensorMap.has(id)) {
      const { refCount, complexTensorInfos } = backend.tensorMap.get(id);
      if ((force === true || refCount <= 1) && !complexTensorInfos) backend.commandQueueOwnedIds.delete(id);
    }
    return disposeData(id, force);
  };
}

/** Submits where a number is read (tfjs does that) and where many uploads wait, and counts what the card is asked. */
function submitSeldom(
  backend: TfjsWebgpuBackend,
  pool: BufferPool<PooledBuffer>,
  counts: WebgpuCounts,
): void {
  env().set("WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE", Number.MAX_SAFE_INTEGER);
  const uploadToGPU = backend.uploadToGPU.bind(backend);
  const recordAndSubmit = backend.recordAndSubmit.bind(backend);
  const submitQueue = backend.submitQueue.bind(backend);
  const getBufferData = backend.getBufferData.bind(backend);
  let staged = 0;
  backend.uploadToGPU = (id) => {
    const { resource, values, shape } = backend.tensorMap.get(id);
    uploadToGPU(id);
    if (resource || !values) return;
    const bytes = 4 * util.sizeFromShape(shape);
    counts.uploaded += bytes;
    staged += bytes;
  };
  backend.recordAndSubmit = (...args) => {
    recordAndSubmit(...args);
    counts.dispatches++;
    if (staged < stagedAtMost || !backend.commandEncoder) return;
    backend.endComputePassEncoder();
    backend.submitQueue();
  };
  backend.submitQueue = () => {
    submitQueue();
    counts.submissions++;
    staged = 0;
    pool.submitted();
  };
  backend.getBufferData = async (buffer) => {
    counts.downloaded += buffer.size;
    return getBufferData(buffer);
  };
}

/** A buffer may be larger than its tensor: what is read of it is cut. */
function cutWhatIsRead(backend: TfjsWebgpuBackend): void {
  const read = backend.read.bind(backend);
  const convertAndCacheOnCPU = backend.convertAndCacheOnCPU.bind(backend);
  const cut = (data: HostValues, { shape, dtype }: TensorData): HostValues => {
    const size = util.sizeFromShape(shape);
    if (dtype === "string" || dtype === "complex64" || data.length <= size) return data;
    return data.subarray(0, size);
  };
  backend.read = async (id) => {
    // Looked up now: the tensor may be gone when its numbers are there.
    const data = backend.tensorMap.get(id);
    return cut(await read(id), data);
  };
  backend.convertAndCacheOnCPU = (id, data) => convertAndCacheOnCPU(id, cut(data, backend.tensorMap.get(id)));
}

/**
 * Makes tfjs's WebGPU back end record a whole stage before it submits it: a submission happens where a
 * number is read, or where 64 MiB of uploads wait. (As it comes, it submits after every 15 programs.)
 * @param limit bytes that one binding may have
 * @returns the counts, which go on
 */
export function recordWholeStages(
  backend: TfjsWebgpuBackend,
  device: BufferMaker<PooledBuffer> & BindingDevice,
  limit: number,
): WebgpuCounts {
  const counts: WebgpuCounts = { dispatches: 0, submissions: 0, uploaded: 0, downloaded: 0 };
  const pool = new BufferPool(device, limit);
  backend.bufferManager = pool;
  releaseAtOnce(backend);
  submitSeldom(backend, pool, counts);
  cutWhatIsRead(backend);
  reuseBindings(backend, device);
  return counts;
}
