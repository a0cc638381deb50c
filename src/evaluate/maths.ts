/**
 * Whether a worked solution ends in the right result: GSM8K's numbers (Cobbe et al. 2021) and MATH's expressions
 * (Hendrycks et al. 2021, by the rules of its authors' math_equivalence.py).
 */

const numberPattern = /-?\$?\d[\d,]*(?:\.\d+)?/g;

/** A number as a number: without commas and currency; NaN where there is none. */
const valueOf = (text: string | undefined): number =>
  text === undefined ? NaN : Number(text.replaceAll(/[,$]/g, ""));

/** The number that a solution ends in: behind ####, behind "answer is", else the last that it names. */
export function lastNumber(solution: string): number {
  const marked = /####\s*(-?\$?[\d,]*\.?\d+)/.exec(solution)?.[1];
  if (marked !== undefined) return valueOf(marked);
  const said = /answer is:?\s*\$?(-?\$?\d[\d,]*(?:\.\d+)?)/i.exec(solution)?.[1];
  return valueOf(said ?? solution.match(numberPattern)?.at(-1));
}

/** GSM8K: whether the number is that of a right solution. */
export const isRightNumber = (said: string, answers: readonly string[]): boolean =>
  answers.some((answer) => lastNumber(answer) === lastNumber(said));

/** What stands in the last \boxed{} (or \fbox{}) of a text; undefined where there is none that is closed. */
export function boxed(text: string): string | undefined {
  const start = Math.max(
    text.lastIndexOf("\\boxed"),
    text.includes("\\boxed") ? -1 : text.lastIndexOf("\\fbox"),
  );
  if (start < 0) return undefined;
  // "\boxed 3" is written, too.
  const bare = /^\\boxed ([^$]+)/.exec(text.slice(start))?.[1];
  const open = text.indexOf("{", start);
  if (bare !== undefined || open < 0) return bare?.trim();
  let depth = 0;
  for (let i = open; i < text.length; i++) {
    if (text[i] === "{") depth++;
    if (text[i] === "}") depth--;
    if (depth === 0) return text.slice(open + 1, i);
  }
  return undefined;
}

/** \frac12 as \frac{1}{2}; undefined where a fraction has nothing in it. */
function withBraces(text: string): string | undefined {
  const [before = "", ...fractions] = text.split("\\frac");
  let out = before;
  for (const one of fractions) {
    out += "\\frac";
    const [a, b] = [one[0], one[1]];
    if (a === "{") out += one;
    else if (a === undefined || b === undefined) return undefined;
    else if (b === "{") out += `{${a}}${one.slice(1)}`;
    else out += `{${a}}{${b}}${one.slice(2)}`;
  }
  return out;
}

/** What is written otherwise and means the same, in this order. */
const same: readonly (readonly [RegExp, string])[] = [
  [/\n|\\!/g, ""],
  [/\\\\/g, "\\"],
  [/[td]frac/g, "frac"],
  [/\\left|\\right/g, ""],
  [/\^\{\\circ\}|\^\\circ/g, ""],
  [/\\\$/g, ""],
];

/** Units behind a number. @throws Error where there are several */
function withoutUnits(text: string): string {
  const parts = text.split("\\text{ ");
  if (parts.length > 2) throw new Error("several units");
  return parts[0] ?? "";
}

/** An expression in the form in which two of them are compared. @throws Error where it has none */
export function plainExpression(expression: string): string {
  let text = same.reduce((all, [pattern, by]) => all.replaceAll(pattern, by), expression);
  text = withoutUnits(text).replaceAll("\\%", "").replaceAll(" .", " 0.").replaceAll("{.", "{0.");
  if (text === "") return text;
  if (text.startsWith(".")) text = `0${text}`;
  // "x = 3" is 3.
  const sides = text.split("=");
  const [left = "", right = ""] = sides;
  if (sides.length === 2 && left.length <= 2) text = right;
  if (text.endsWith("\\sqrt")) throw new Error("a root of nothing");
  text = text.replaceAll(/\\sqrt([^{])/g, "\\sqrt{$1}").replaceAll(" ", "");
  text = withBraces(text) ?? text;
  if (text === "0.5") return "\\frac{1}{2}";
  const [, a, b] = /^(-?\d+)\/(-?\d+)$/.exec(text) ?? [];
  if (a === undefined || b === undefined || `${Number(a)}/${Number(b)}` !== text) return text;
  return `\\frac{${a}}{${b}}`;
}

/** Whether two expressions are the same. */
export function areSame(one: string, other: string): boolean {
  try {
    return plainExpression(one) === plainExpression(other);
  } catch {
    return one === other;
  }
}

/** MATH: whether what is boxed is what a right solution boxes; without a box, what was said behind "answer is". */
export function isRightExpression(said: string, answers: readonly string[]): boolean {
  const result = boxed(said) ?? /answer is:?\s*\$?([^$\n]+?)\$?\.?\s*$/i.exec(said)?.[1];
  if (result === undefined) return false;
  return answers.some((answer) => areSame(result, boxed(answer) ?? answer));
}
