/**
 * Checked access to lists, maps and arrays of numbers. With `noUncheckedIndexedAccess` every index may miss; these
 * throw where it does, so that a wrong index ends a run and never becomes a NaN in a model.
 *
 * In the tightest loops over entries (methods/, tensor/) an assertion (`!`) stands where these were measured to cost
 * time; nowhere else.
 *
 * The ones for arrays of numbers exist apart from `at` for speed: in a loop over the entries of a tensor each must
 * only ever see one kind of array, or the engine stops inlining it (18 times slower, measured with Node 20).
 */

function miss(index: unknown, what: string): never {
  throw new RangeError(`no ${what} at ${String(index)}`);
}

/**
 * The item at `index` of a list; −1 is the last.
 * @throws RangeError beyond its ends
 */
export function at<T>(items: readonly T[], index: number): T {
  const item = items[index < 0 ? items.length + index : index];
  return item === undefined ? miss(index, "item") : item;
}

/**
 * What a map holds for a key.
 * @throws RangeError where it has none
 */
export function lookUp<K, V>(map: { get(key: K): V | undefined }, key: K): V {
  const value = map.get(key);
  return value === undefined ? miss(key, "entry") : value;
}

/** Entry `i`. For loops over entries: see above. @throws RangeError beyond its end */
export function f32(values: Float32Array, i: number): number {
  const value = values[i];
  return value === undefined ? miss(i, "number") : value;
}

/** As {@link f32}, of doubles. */
export function f64(values: Float64Array, i: number): number {
  const value = values[i];
  return value === undefined ? miss(i, "number") : value;
}

/** As {@link f32}, of signed integers of 32 bits. */
export function i32(values: Int32Array, i: number): number {
  const value = values[i];
  return value === undefined ? miss(i, "number") : value;
}

/** As {@link f32}, of unsigned integers of 32 bits. */
export function u32(values: Uint32Array, i: number): number {
  const value = values[i];
  return value === undefined ? miss(i, "number") : value;
}

/** As {@link f32}, of unsigned integers of 16 bits. */
export function u16(values: Uint16Array, i: number): number {
  const value = values[i];
  return value === undefined ? miss(i, "number") : value;
}

/** As {@link f32}, of bytes. */
export function u8(values: Uint8Array, i: number): number {
  const value = values[i];
  return value === undefined ? miss(i, "number") : value;
}
