import { execFileSync } from "node:child_process";
import { guessedMemory, memoryOfHost, type DeviceMemory, type Engine } from "./engine.js";

const backend = "tensorflow";

/** What nvidia-smi says is free on the first card, in MiB; NaN or 0 where it says nothing. */
function freeOnCard(): number {
  try {
    const printed = execFileSync("nvidia-smi", ["--query-gpu=memory.free", "--format=csv,noheader,nounits"], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    const [first] = printed.split("\n");
    return Number(first);
  } catch {
    return 0;
  }
}

function memoryOfCard(): DeviceMemory {
  const mebibytes = freeOnCard();
  if (!(mebibytes > 0)) return guessedMemory(backend);
  return { bytes: 0.9 * mebibytes * 2 ** 20, from: "nine tenths of the card's free memory", shared: false };
}

const load = async (packages: readonly string[], device: "gpu" | "cpu") =>
  (await import("./native-load.js")).loadNative(packages, device);

export const nodeGpu: Engine<"node-gpu"> = {
  name: "node-gpu",
  what: "TensorFlow on an NVIDIA card",
  needs: "an NVIDIA card with its driver, and TensorFlow with CUDA (pip), a C++ compiler to set it up",
  tried: "on no card yet",
  mend: "train-merge setup native --gpu",
  ownHeap: false,
  deviceMemory: memoryOfCard,
  load: () => load(["@tensorflow/tfjs-node-gpu", "@tensorflow/tfjs-node"], "gpu"),
};

export const node: Engine<"node"> = {
  name: "node",
  what: "TensorFlow on the CPU",
  needs: "TensorFlow (pip; 2.21 was tried), and a C++ compiler to set it up",
  mend: "train-merge setup native",
  ownHeap: false,
  deviceMemory: memoryOfHost,
  load: () => load(["@tensorflow/tfjs-node"], "cpu"),
};
