import { div, mul, square, sub, tanh, type Tensor } from "@tensorflow/tfjs-core";

/** cap · tanh(z / cap): scores that stay within ±cap (Gemma 2; Bello et al. 2016). Without a cap, z itself. */
export const capped = <T extends Tensor>(z: T, cap: number | undefined): T =>
  cap === undefined ? z : mul(tanh(div(z, cap)), cap);

/** A gradient back through a cap. @param z what the cap made */
export const throughCap = <T extends Tensor>(dz: T, z: Tensor, cap: number | undefined): T =>
  cap === undefined ? dz : mul(dz, sub(1, square(div(z, cap))));
