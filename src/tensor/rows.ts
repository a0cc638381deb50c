import { at } from "../at.js";

/** A tensor seen as rows of its last axis, or some of its rows; a vector is one row. */
export interface RowShape {
  readonly rows: number;
  readonly width: number;
}

/** @param size entries of the tensor */
export function rowShape(shape: readonly number[], size: number): RowShape {
  const width = shape.length > 1 ? at(shape, -1) : size;
  return { rows: width === 0 ? 0 : size / width, width };
}
