import { at } from "../at.js";

/** Items in another order (Fisher–Yates, from the end). @param below draws a whole number below `count` */
export function fisherYates<T>(items: readonly T[], below: (count: number) => number): T[] {
  const out = [...items];
  for (let i = out.length - 1; i > 0; i--) {
    const j = below(i + 1);
    const held = at(out, i);
    out[i] = at(out, j);
    out[j] = held;
  }
  return out;
}
