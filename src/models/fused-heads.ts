import { pad, reshape, slice, type Tensor2D } from "@tensorflow/tfjs-core";
import { op, type Span } from "./ops.js";

/** How one matrix holds queries, keys and values: group after group, in each its queries' heads, its key, its value. */
export interface FusedHeads {
  readonly groups: number;
  /** Heads of queries in a group. */
  readonly queries: number;
  /** Entries of a head. */
  readonly depth: number;
}

/** Some heads of every group: [n, groups · heads of a group · depth] → [n, groups · size · depth]. */
function headsOfGroups(x: Tensor2D, { groups, queries, depth }: FusedHeads, { start, size }: Span): Tensor2D {
  const [n, width] = x.shape;
  const heads = queries + 2;
  return op(
    [x],
    ([input]) => {
      const some = slice(reshape(input, [n, groups, heads, depth]), [0, 0, start, 0], [-1, -1, size, -1]);
      const value: Tensor2D = reshape(some, [n, groups * size * depth]);
      return { value, saved: [] };
    },
    (dy) => {
      const zero: [number, number] = [0, 0];
      const others: [number, number] = [start, heads - start - size];
      return [reshape(pad(reshape(dy, [n, groups, size, depth]), [zero, zero, others, zero]), [n, width])];
    },
  );
}

/** Queries, keys and values out of what one matrix made, [tokens, heads · depth] each. */
export const apart = (x: Tensor2D, fused: FusedHeads): [q: Tensor2D, k: Tensor2D, v: Tensor2D] => [
  headsOfGroups(x, fused, { start: 0, size: fused.queries }),
  headsOfGroups(x, fused, { start: fused.queries, size: 1 }),
  headsOfGroups(x, fused, { start: fused.queries + 1, size: 1 }),
];
