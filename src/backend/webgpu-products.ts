import { env, getKernel } from "@tensorflow/tfjs-core";
import { defineKernel, matrixSizes } from "./kernels.js";

/** tfjs's flag that names the program of a product, and the one of its programs for few outputs. */
const programFlag = "WEBGPU_MATMUL_PROGRAM_TYPE";
const fewOutputs = 2;

/** Terms of a sum from which tfjs splits it, and the most tiles of 32 × 32 outputs at which it does on any card. */
const splitFrom = 2000;
const splitTiles = 32;
/** Outputs up to which tfjs takes a program that splits in another way. */
const reducedOutputs = 128;

const tiles = (outputs: number): number => Math.ceil(outputs / 32);

/**
 * Products whose long sums tfjs (4.22.0) would split: its `MatMulSplitKProgram` reads four entries at a time along
 * the wrong axis of a transposed second operand, and every output is wrong. Another of its programs takes their place.
 */
export function defineProducts(): void {
  const shipped = getKernel("BatchMatMul", "webgpu").kernelFunc;
  defineKernel("webgpu", "BatchMatMul", (call) => {
    const [first, second] = matrixSizes(call.input("a"));
    const [inner, rows] = call.flag("transposeA") ? [first, second] : [second, first];
    const [columns] = matrixSizes(call.input("b"));
    const isSplit =
      inner >= splitFrom && rows * columns > reducedOutputs && tiles(rows) * tiles(columns) <= splitTiles;
    if (!isSplit || !call.flag("transposeB")) return call.passTo(shipped);
    const before = env().getNumber(programFlag);
    env().set(programFlag, fewOutputs);
    try {
      return call.passTo(shipped);
    } finally {
      env().set(programFlag, before);
    }
  });
}
