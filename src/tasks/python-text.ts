/** Python's ways with text, which templates were written for: what `str`, `repr` and the methods of strings give. */

/** What `str.strip` takes away: Python's white space, which is not quite JavaScript's. */
const space = "[\\s\\u001c-\\u001f\\u0085]";
const isBom = /\uFEFF/;

/** `str.strip`, `lstrip` and `rstrip`. @param chars those that are taken away; white space without */
export function strip(text: string, chars?: string, sides: "both" | "left" | "right" = "both"): string {
  const letters = Array.from(text);
  const one = new RegExp(`^${space}$`, "u");
  const isTaken = (letter: string) =>
    chars === undefined ? one.test(letter) && !isBom.test(letter) : chars.includes(letter);
  let [from, to] = [0, letters.length];
  if (sides !== "right") while (from < to && isTaken(letters[from] ?? "")) from++;
  if (sides !== "left") while (to > from && isTaken(letters[to - 1] ?? "")) to--;
  return letters.slice(from, to).join("");
}

/** `str.capitalize`: the first letter large, all others small. */
export function capitalize(text: string): string {
  const [first = "", ...rest] = Array.from(text);
  return first.toUpperCase() + rest.join("").toLowerCase();
}

/** `repr` of a text. */
function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text
    .replaceAll("\\", "\\\\")
    .replaceAll(quote, `\\${quote}`)
    .replaceAll("\n", "\\n")
    .replaceAll("\r", "\\r")
    .replaceAll("\t", "\\t");
  return quote + escaped + quote;
}

/** `repr`. */
function shown(value: unknown): string {
  if (typeof value === "string") return quoted(value);
  if (Array.isArray(value)) return `[${value.map(shown).join(", ")}]`;
  if (typeof value === "object" && value !== null)
    return `{${Object.entries(value)
      .map(([name, one]) => `${quoted(name)}: ${shown(one)}`)
      .join(", ")}}`;
  return written(value);
}

/** `str`: what a template writes for a value. Nothing where there is none. */
export function written(value: unknown): string {
  if (typeof value === "string") return value;
  if (value === undefined) return "";
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "object") return shown(value);
  return `${value as number}`;
}

/** A whole number as Jinja2's `int` reads it. @param otherwise where it is none */
export function whole(value: unknown, otherwise: unknown): unknown {
  if (typeof value === "boolean") return Number(value);
  if (typeof value === "number") return Math.trunc(value);
  if (typeof value !== "string" || !/^\s*[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?\s*$/i.test(value))
    return otherwise;
  return Math.trunc(Number(value));
}

/** Jinja2's `truncate`: at a space, unless words may be cut, where the text is longer by more than `leeway`. */
export function truncated(
  text: string,
  most: number,
  { killwords = false, end = "...", leeway = 5 }: { killwords?: boolean; end?: string; leeway?: number },
): string {
  const letters = Array.from(text);
  if (letters.length <= most + leeway) return text;
  const kept = letters.slice(0, most - Array.from(end).length).join("");
  const lastSpace = kept.lastIndexOf(" ");
  return (killwords || lastSpace < 0 ? kept : kept.slice(0, lastSpace)) + end;
}
