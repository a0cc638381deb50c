/**
 * Values that come one for each input, together with the inputs. For what is done once a tensor or a part, not for
 * loops over entries.
 */
import { at } from "../at.js";

/**
 * Two lists of one length, item by item.
 * @throws RangeError where one is longer
 */
export function zip<A, B>(first: readonly A[], second: readonly B[]): [A, B][] {
  if (first.length !== second.length)
    throw new RangeError(`${first.length} of the one, but ${second.length} of the other`);
  return second.map((b, i) => [at(first, i), b]);
}

/** The two inputs of a method that takes two, or their values. @throws RangeError where there are not two */
export function pair<T>(items: readonly T[]): readonly [T, T] {
  const [first, second] = items;
  if (first === undefined || second === undefined || items.length > 2)
    throw new RangeError(`two inputs are wanted, not ${items.length}`);
  return [first, second];
}

/** The input of a method that takes one. @throws RangeError where there is not one */
export function sole<T>(items: readonly T[]): T {
  const [only] = items;
  if (only === undefined || items.length > 1)
    throw new RangeError(`one input is wanted, not ${items.length}`);
  return only;
}

/** Sorts what has a name by it: a sum of floats must not depend on which thread was first, or on an order given. */
export const byName = (
  [a]: readonly [name: string, ...unknown[]],
  [b]: readonly [name: string, ...unknown[]],
): number => (a < b ? -1 : 1);
