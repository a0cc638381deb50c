/**
 * What a model gives of a row to a head: one vector (of its first or last token), or one a token, where the row asks
 * for that.
 */
import { tensor1d, tensor2d, type Tensor2D } from "@tensorflow/tfjs-core";
import { i32 } from "../at.js";
import { product, rows } from "./ops.js";
import type { TokenBatch, TokenRow } from "./types.js";

export const outputsOfRow = ({ ids, everyToken }: TokenRow): number => (everyToken ? ids.length : 1);

/**
 * The activations that heads are given, in the order in which rows were given: of a row its first token, or the one
 * `after` that; or every token.
 * @param x [tokens, width]
 */
export function headInputs(
  { x, batch }: { readonly x: Tensor2D; readonly batch: TokenBatch },
  after: (row: TokenRow) => number = () => 0,
): Tensor2D {
  const tokens = batch.rows.flatMap((row, r) => {
    const first = i32(batch.first, r);
    if (!row.everyToken) return [first + after(row)];
    return row.ids.map((_, i) => first + i);
  });
  return rows(x, tensor1d(Int32Array.from(tokens), "int32"));
}

/** The mean of every row's tokens, [rows, width], but for the first `skipped` of them. */
export function meanOfTokens(
  { x, batch }: { readonly x: Tensor2D; readonly batch: TokenBatch },
  skipped = 0,
): Tensor2D {
  const [tokens] = x.shape;
  const shares = new Float32Array(batch.rows.length * tokens);
  for (const [r, { ids }] of batch.rows.entries()) {
    const first = r * tokens + i32(batch.first, r);
    shares.fill(1 / (ids.length - skipped), first + skipped, first + ids.length);
  }
  return product(tensor2d(shares, [batch.rows.length, tokens]), x);
}
