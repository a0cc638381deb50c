import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { linkerFinds, linkerFolders, linkerList } from "./linker.js";
import { EngineProblem } from "./engine.js";

/** The packages with which pip brings CUDA 12 to a machine that lacks it. */
const cudaPackages = ["runtime", "nvrtc", "cupti"].map((name) => `nvidia-cuda-${name}-cu12`);
const mathPackages = ["cublas", "cudnn", "cufft", "curand", "cusolver", "cusparse", "nccl", "nvjitlink"].map(
  (name) => `nvidia-${name}-cu12`,
);

/** What a machine has of what TensorFlow needs for a card. */
export interface CudaFacts {
  /** The card's device file is there. */
  readonly card: boolean;
  /** Whether a library would be found. */
  has(library: string): boolean;
}

/** Why TensorFlow finds no card, and the line that mends it. TensorFlow 2.21 is built for CUDA 12 and cuDNN 9. */
export function cudaProblem({ card, has }: CudaFacts): EngineProblem {
  if (!card)
    return new EngineProblem(
      "no NVIDIA card is here (there is no /dev/nvidia0)",
      "install the card's driver and see that nvidia-smi lists it, or use another engine",
    );
  const missing = ["libcudart.so.12", "libcublas.so.12", "libcudnn.so.9"].find((library) => !has(library));
  if (missing === undefined)
    return new EngineProblem(
      "TensorFlow finds no card it can use",
      "see that nvidia-smi lists a card, then train-merge setup native --gpu",
    );
  const newer = has("libcudart.so.13") ? "; CUDA 13's, which are here, do not serve" : "";
  const mend =
    "train-merge setup native --gpu, which fetches them, or beside a TensorFlow of your own: " +
    `python3 -m pip install ${[...cudaPackages, ...mathPackages].join(" ")}`;
  return new EngineProblem(
    `TensorFlow needs the libraries of CUDA 12 with cuDNN 9, and ${missing} is not here${newer}`,
    mend,
  );
}

/** Where TensorFlow lies that the engine was built on, where that is not the engine's own folder. */
function tensorflowElsewhere(nativeFolder: string): string | undefined {
  const text = join(nativeFolder, "tensorflow.txt");
  if (!existsSync(text)) return undefined;
  return / in (\/.*)$/m.exec(readFileSync(text, "utf8"))?.[1];
}

/** Folders in which pip puts CUDA's libraries beside a TensorFlow. */
function wheelFolders(nativeFolder: string): string[] {
  const roots = [join(nativeFolder, "python", "nvidia")];
  const elsewhere = tensorflowElsewhere(nativeFolder);
  if (elsewhere !== undefined) roots.push(join(dirname(elsewhere), "nvidia"));
  return roots
    .filter((root) => existsSync(root))
    .flatMap((root) => readdirSync(root).map((name) => join(root, name, "lib")));
}

/** @param nativeFolder where `setup native` put the engine */
export function cudaFacts(nativeFolder: string): CudaFacts {
  const folders = [...wheelFolders(nativeFolder), ...linkerFolders()];
  return {
    card: ["/dev/nvidia0", "/dev/dxg"].some((path) => existsSync(path)),
    has: (library) => linkerFinds(library, linkerList, folders),
  };
}
