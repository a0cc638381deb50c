import { add, dispose, type Tensor } from "@tensorflow/tfjs-core";

/**
 * Gradients of the same weights by one more pass: both lists are the caller's no longer, the sums are. What neither
 * pass reaches has none. One at a time, so that no third copy of the gradients is held.
 */
export const addGradients = (
  total: readonly (Tensor | undefined)[],
  more: readonly (Tensor | undefined)[],
): (Tensor | undefined)[] =>
  more.map((now, i) => {
    const before = total[i];
    if (!before || !now) return before ?? now;
    const sum = add(before, now);
    dispose([before, now]);
    return sum;
  });
