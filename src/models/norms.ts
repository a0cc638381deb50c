/** Normalisations of rows, by an engine's own kernels where it has them (backend/webgpu-fused.ts). */
import {
  add,
  mean,
  mul,
  rsqrt,
  square,
  sub,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { hasKernel, runOwn } from "./own-kernels.js";
import { columnSums, op } from "./ops.js";

/** What a normalisation by own kernels is: LayerNorm where it is centred, else RMSNorm. */
interface FusedNorm {
  readonly epsilon: number;
  readonly centred: boolean;
}

/** [rows, 2]: mean and 1 / deviation of every row. They are kept, with x itself, in the place of the normal rows. */
const statisticsOf = (x: Tensor2D, norm: FusedNorm): Tensor => runOwn("RowStatistics", { x }, { ...norm });

/** The gradients of x and of the scale. */
function fusedGradients(
  dy: Tensor,
  [x, statistics, scale]: readonly [Tensor, Tensor, Tensor],
  { centred }: FusedNorm,
): [Tensor, Tensor] {
  const dx = runOwn("NormGradient", { x, statistics, scale, dy }, { centred });
  return [dx, columnSums(runOwn("NormalProducts", { x, statistics, dy }))];
}

const isFused = (): boolean => hasKernel("RowStatistics");

/** Layer normalisation over the last axis: x [n, width], scale and shift [width]. */
export function layerNorm(x: Tensor2D, scale: Tensor1D, shift: Tensor1D, epsilon: number): Tensor2D {
  if (isFused()) {
    const norm = { epsilon, centred: true };
    return op(
      [x, scale, shift],
      ([input, gamma, beta]) => {
        const statistics = statisticsOf(input, norm);
        const value: Tensor2D = runOwn("NormaliseRows", { x: input, statistics, scale: gamma, shift: beta });
        return { value, saved: [input, statistics, gamma] };
      },
      (dy, saved) => [...fusedGradients(dy, saved, norm), columnSums(dy)],
    );
  }
  return op(
    [x, scale, shift],
    ([input, gamma, beta]) => {
      const centred = sub(input, mean(input, 1, true));
      const inverse = rsqrt(add(mean(square(centred), 1, true), epsilon));
      const normal = mul(centred, inverse);
      return { value: add<Tensor2D>(mul(normal, gamma), beta), saved: [normal, inverse, gamma] };
    },
    (dy, [normal, inverse, gamma]) => {
      const dNormal = mul(dy, gamma);
      const along = mean(mul(dNormal, normal), 1, true);
      const dx = mul(inverse, sub(sub(dNormal, mean(dNormal, 1, true)), mul(normal, along)));
      return [dx, columnSums(mul(dy, normal)), columnSums(dy)];
    },
  );
}

/** x / √(mean x² + ε) ⊙ scale over the last axis: x [n, width], scale [width] (Zhang & Sennrich 2019). */
export function rmsNorm(x: Tensor2D, scale: Tensor1D, epsilon: number): Tensor2D {
  if (isFused()) {
    const norm = { epsilon, centred: false };
    return op(
      [x, scale],
      ([input, gamma]) => {
        const statistics = statisticsOf(input, norm);
        const value: Tensor2D = runOwn("NormaliseRows", { x: input, statistics, scale: gamma });
        return { value, saved: [input, statistics, gamma] };
      },
      (dy, saved) => fusedGradients(dy, saved, norm),
    );
  }
  return op(
    [x, scale],
    ([input, gamma]) => {
      const inverse = rsqrt(add(mean(square(input), 1, true), epsilon));
      const normal = mul(input, inverse);
      return { value: mul<Tensor2D>(normal, gamma), saved: [normal, inverse, gamma] };
    },
    (dy, [normal, inverse, gamma]) => {
      const dNormal = mul(dy, gamma);
      const dx = mul(inverse, sub(dNormal, mul(normal, mean(mul(dNormal, normal), 1, true))));
      return [dx, columnSums(mul(dy, normal))];
    },
  );
}
