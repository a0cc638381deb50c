import { vi } from "vitest";
import { conformance } from "./suite.js";

// On a Vulkan that runs on the CPU (scripts/software-vulkan.mjs) a step of MiniLM takes minutes.
const software = process.env["VK_DRIVER_FILES"] !== undefined;
if (software) vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });
await conformance("webgpu", { slow: software });
