import { closest, distance } from "fastest-levenshtein";

/** ` (did you mean "x"?)` where a known name is near enough to be what was meant, else "". */
export function nearest(name: string, known: Iterable<string>): string {
  const names = [...known];
  if (names.length === 0) return "";
  const best = closest(name, names);
  return distance(name, best) <= Math.max(2, name.length / 3) ? ` (did you mean "${best}"?)` : "";
}
