/** Loads the engine in a folder and has it do a product and a gradient; setup/native.ts runs this as a process. */
import {
  engine,
  findBackend,
  matMul,
  setBackend,
  square,
  sum,
  tensor1d,
  tensor2d,
} from "@tensorflow/tfjs-core";
import { loadNative, type NativeBackend } from "../backend/native.js";
import { registerGradients } from "../backend/gradients.js";
import { affine } from "../models/ops.js";

const { backend } = await loadNative([], "any", process.argv[2]);
await setBackend(backend);
registerGradients();
const [a, b] = [
  tensor2d([
    [1, 2],
    [3, 4],
  ]),
  tensor2d([
    [5, 6],
    [7, 8],
  ]),
];
const expectProduct = Array.from(await matMul(a, b, false, true).data());
if (expectProduct.join() !== "17,23,39,53")
  throw new Error(`matMul gave ${expectProduct.join()}, not 17,23,39,53`);
// L = Σ (x Wᵀ + c)²: ∂L/∂W = 2 yᵀ x.
const { grads } = engine().gradients(
  () => sum(square(affine(a, [{ weight: b, bias: tensor1d([0, 1]) }]))) as never,
  [b],
);
const gradient = Array.from(await grads[0]!.data());
if (gradient.join() !== "268,380,372,528") throw new Error(`the gradient is ${gradient.join()}`);
const device = (findBackend("tensorflow") as unknown as NativeBackend).isUsingGpuDevice ? "gpu" : "cpu";
process.stdout.write(`${JSON.stringify({ device })}\n`);
process.exit(0);
