import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { registerBackend, type KernelBackend } from "@tensorflow/tfjs-core";
import { packageFolder } from "../package.js";
import { findPackage, noCard, type Loaded } from "./engine.js";
import { registerWebgpuKernels } from "./webgpu-kernels.js";
import type { BindingDevice } from "./webgpu-bindings.js";
import type { BufferMaker, PooledBuffer } from "./webgpu-pool.js";
import { recordWholeStages, type TfjsWebgpuBackend, type WebgpuCounts } from "./webgpu-queue.js";

/** Limits that a merge runs into first: big stacks of deltas, and shared memory. */
const wantedLimits = [
  "maxComputeWorkgroupStorageSize",
  "maxComputeWorkgroupsPerDimension",
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxComputeWorkgroupSizeX",
  "maxComputeInvocationsPerWorkgroup",
  "maxStorageBuffersPerShaderStage",
] as const;
type Limits = Readonly<Record<(typeof wantedLimits)[number], number>>;

/** The parts of WebGPU that starting needs; the package `webgpu` (Dawn) fills them. */
interface GpuAdapter {
  readonly features: { has(name: string): boolean };
  readonly limits: Limits;
  readonly info: {
    readonly vendor: string;
    readonly architecture: string;
    readonly description: string;
    readonly isFallbackAdapter?: boolean;
  };
  requestDevice(descriptor: object): Promise<GpuDevice>;
}
interface GpuDevice extends BufferMaker<PooledBuffer>, BindingDevice {
  readonly limits: Limits;
  addEventListener(type: "uncapturederror", listener: (event: { error: { message: string } }) => void): void;
}
interface Dawn {
  create(flags: string[]): { requestAdapter(options: object): Promise<GpuAdapter | null> };
  globals: object;
}
interface TfjsWebgpu {
  WebGPUBackend: new (device: object, info: object) => KernelBackend & TfjsWebgpuBackend;
}

type Gpu = ReturnType<Dawn["create"]>;

/** For measurements: Dawn's own switches, such as "disable-dawn-features=timestamp_quantization", divided by blanks. */
const switchesVariable = "TRAIN_MERGE_DAWN";

/** NVIDIA's driver by the library that needs no display: the one its manifest names does not start on many servers. */
const headlessNvidia = join(packageFolder, "data", "native", "nvidia-headless.json");

/** Dawn with its adapter. A second look is taken with NVIDIA's driver for machines without a display. */
async function findAdapter({ create }: Dawn): Promise<{ gpu: Gpu; adapter: GpuAdapter }> {
  const switches = (process.env[switchesVariable] ?? "").split(" ").filter(Boolean);
  const look = async () => {
    const gpu = create(switches);
    const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    return adapter ? { gpu, adapter } : undefined;
  };
  const found = await look();
  if (found) return found;
  if (process.platform !== "linux") throw noCard();
  // The Vulkan loader's own variables: the second is not looked at where the first is set.
  const variable = process.env["VK_DRIVER_FILES"] === undefined ? "VK_ADD_DRIVER_FILES" : "VK_DRIVER_FILES";
  const named = process.env[variable];
  process.env[variable] = named ? `${named}:${headlessNvidia}` : headlessNvidia;
  const headless = await look();
  if (headless) return headless;
  throw noCard();
}

/** @template T the parts of the package that are used here: it need not be installed, so its own types are not there */
async function importOptional<T>(name: string): Promise<T> {
  const path = findPackage(name);
  if (path === undefined) throw new Error(`the package ${name} is not installed`);
  return (await import(pathToFileURL(path).href)) as T;
}

/** A Vulkan that runs on the CPU: good for tests, far slower than the other engines there. */
const isSoftware = ({ info }: GpuAdapter): boolean =>
  info.isFallbackAdapter === true ||
  /swiftshader|llvmpipe|lavapipe/i.test(`${info.architecture} ${info.description}`);

let cardCounts: WebgpuCounts | undefined;

/** What the card was asked to do so far; undefined where the webgpu engine does not run. */
export const webgpuCounts = (): Readonly<WebgpuCounts> | undefined => cardCounts;

/**
 * For tests: with "default", a card is used within the limits that WebGPU promises everywhere (128 MiB
 * a binding).
 */
const limitsVariable = "TRAIN_MERGE_WEBGPU_LIMITS";

/** Asks for a card with its own limits: WebGPU's defaults stop at 128 MB a tensor. */
async function openDevice(adapter: GpuAdapter): Promise<GpuDevice> {
  const limits = process.env[limitsVariable] === "default" ? [] : wantedLimits;
  const device = await adapter.requestDevice({
    requiredFeatures: ["timestamp-query"].filter((feature) => adapter.features.has(feature)),
    requiredLimits: Object.fromEntries(limits.map((name) => [name, adapter.limits[name]])),
  });
  // WebGPU goes on with zeros after an error; a wrong number must not look like a right one.
  device.addEventListener("uncapturederror", ({ error }) => {
    setImmediate(() => {
      throw new Error(`WebGPU: ${error.message.split("\n")[0]}`);
    });
  });
  return device;
}

/**
 * Registers tfjs's WebGPU back end on Dawn's Node binding, with the card's own limits and the merge op's kernels.
 * @throws Error where a package or a card is missing
 */
export async function loadWebgpu(): Promise<Loaded & { readonly vendor: string }> {
  const dawn = await importOptional<Dawn>("webgpu");
  const { WebGPUBackend } = await importOptional<TfjsWebgpu>("@tensorflow/tfjs-backend-webgpu");
  Object.assign(globalThis, dawn.globals);
  const { gpu, adapter } = await findAdapter(dawn);
  const device = await openDevice(adapter);
  // tfjs looks for a browser: a navigator that has the card (which keeps Dawn's instance alive).
  Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true });
  const backend = new WebGPUBackend(device, adapter.info);
  const tensorLimit = Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize);
  cardCounts = recordWholeStages(backend, device, tensorLimit);
  // merge/vectors.ts reads it.
  Object.assign(backend, { tensorLimit });
  registerBackend("webgpu", () => backend);
  registerWebgpuKernels();
  return {
    backend: "webgpu",
    vendor: adapter.info.vendor.toLowerCase(),
    text: adapter.info.description || adapter.info.architecture || adapter.info.vendor,
    emulated: isSoftware(adapter),
  };
}
