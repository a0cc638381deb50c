import { guessedMemory, type Engine } from "./engine.js";

export const webgpu: Engine<"webgpu"> = {
  name: "webgpu",
  what: "a card through Vulkan, Metal or D3D12",
  needs: "the packages webgpu and @tensorflow/tfjs-backend-webgpu, and a card with its driver",
  tried:
    "on SwiftShader, which emulates a card (2026-11-26: the conformance suite, the step, a " +
    "binding of 128 MiB); on no real card yet",
  mend: "npm install webgpu@0.6.2 @tensorflow/tfjs-backend-webgpu@4.22.0",
  ownHeap: false,
  deviceMemory: () => guessedMemory("webgpu"),
  load: async () => (await import("./webgpu-load.js")).loadWebgpu(),
};
