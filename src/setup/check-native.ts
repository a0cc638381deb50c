/** Loads the engine in a folder and has it do a product and a gradient; setup/native.ts runs this as a process. */
import {
  engine,
  matMul,
  setBackend,
  square,
  sum,
  tensor1d,
  tensor2d,
  type Scalar,
} from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import { registerGradients } from "../backend/kernels.js";
import { loadNative, usesCard } from "../backend/native-load.js";
import { affine } from "../models/ops.js";

const { backend } = await loadNative([], "any", process.argv[2]);
await setBackend(backend);
registerGradients();
const a = tensor2d([1, 2, 3, 4], [2, 2]);
const b = tensor2d([5, 6, 7, 8], [2, 2]);
const computed = Array.from(await matMul(a, b, false, true).data());
if (computed.join() !== "17,23,39,53") throw new Error(`matMul gave ${computed.join()}, not 17,23,39,53`);
// L = Σ (x Wᵀ + c)²: ∂L/∂W = 2 yᵀ x.
const { grads } = engine().gradients(
  () => sum<Scalar>(square(affine(a, [{ weight: b, bias: tensor1d([0, 1]) }]))),
  [b],
);
const slope = Array.from(await at(grads, 0).data());
if (slope.join() !== "268,380,372,528") throw new Error(`the gradient is ${slope.join()}`);
process.stdout.write(`${JSON.stringify({ device: usesCard() ? "gpu" : "cpu" })}\n`);
process.exit(0);
