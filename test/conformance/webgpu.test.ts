import { conformance } from "./suite.js";

// On a Vulkan that runs on the CPU (scripts/software-vulkan.mjs) a step of MiniLM takes half a minute.
await conformance("webgpu", { real: process.env["VK_DRIVER_FILES"] === undefined });
