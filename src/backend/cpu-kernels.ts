import { findBackend, util, type TensorInfo } from "@tensorflow/tfjs-core";
import { registerUnpackKernels, typedReaders } from "./packed.js";

/** The parts of tfjs's plain JavaScript back end that our kernels touch: numbers are typed arrays behind a data id. */
interface CpuBackend {
  data: { get(id: object): { values: unknown } };
  makeTensorInfo(shape: number[], dtype: "float32", values: Float32Array): TensorInfo;
}

/** Adds what tfjs's plain JavaScript back end lacks. Call once, after it was imported. */
export function prepareCpu(): void {
  // Its first op would print an advertisement for another engine; doctor says it better.
  Object.assign(findBackend("cpu") ?? {}, { firstUse: false });
  registerUnpackKernels<CpuBackend>("cpu", (backend) => ({
    ...typedReaders(({ dataId }) => backend.data.get(dataId).values),
    make(shape, fill) {
      const values = new Float32Array(util.sizeFromShape(shape));
      fill(values);
      return backend.makeTensorInfo(shape, "float32", values);
    },
  }));
}
