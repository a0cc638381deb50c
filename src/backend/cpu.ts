import { memoryOfHost, type Engine } from "./engine.js";

export const cpu: Engine<"cpu"> = {
  name: "cpu",
  what: "plain JavaScript: slow, for checking",
  needs: "nothing more",
  mend: "npm install",
  ownHeap: false,
  deviceMemory: memoryOfHost,
  async load() {
    await import("@tensorflow/tfjs-backend-cpu");
    const { prepareCpu } = await import("./cpu-kernels.js");
    prepareCpu();
    return { backend: "cpu", text: "one thread" };
  },
};
