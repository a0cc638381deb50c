/**
 * Prompt templates as promptsource renders them: Jinja2 with its own whitespace rules (nothing is trimmed), Python's
 * texts and methods, and the filter `choice`. The interpreter is the one of the chat templates; what it does otherwise
 * than Jinja2 is put into calls of functions of ours before it runs.
 */
import { Environment, Interpreter, parse, tokenize } from "@huggingface/jinja";
import { isObject } from "./columns.js";
import { namesIn, own, rewritten, type Names } from "./jinja-nodes.js";
import { capitalize, strip, truncated, whole, written } from "./python-text.js";

export interface PromptTemplate {
  /** Values that it cannot do without: it reads them without asking whether they are there. */
  readonly needs: readonly string[];
  /** @param random draws what `choice` picks by: from 0 to 1 */
  render(values: Readonly<Record<string, unknown>>, random: () => number): string;
}

/** What stands for None: functions cannot tell the interpreter's own from what is not there. */
const none = NaN;

/** A value of the interpreter's as a plain one. */
function plain(value: unknown): unknown {
  if (Number.isNaN(value)) return null;
  const inside = (one: unknown) => (isObject(one) ? plain(one["value"]) : one);
  if (value instanceof Map)
    return Object.fromEntries(
      [...value].map(([name, one]: [unknown, unknown]) => [String(name), inside(one)]),
    );
  if (Array.isArray(value)) return value.map(inside);
  return value;
}

type Values = readonly unknown[];
type Operation = (operand: unknown, args: Values, random: () => number) => unknown;

/** Arguments by their places or their names: named ones come as an object behind the others. */
function named(args: Values, names: readonly string[]): Record<string, unknown> {
  const last = args.at(-1);
  const isNamed = isObject(last) && !Array.isArray(last);
  const placed = (isNamed ? args.slice(0, -1) : args).map((value, i) => [names[i] ?? "", value]);
  return { ...Object.fromEntries(placed), ...(isNamed && last) };
}

const textOf = (value: unknown, what: string): string => {
  if (typeof value === "string") return value;
  throw new Error(`"${what}" takes a text`);
};
const listOf = (value: unknown, what: string): Values => {
  if (Array.isArray(value)) return value;
  if (typeof value === "string") return Array.from(value);
  throw new Error(`"${what}" takes a list`);
};
const charsIn = (args: Values): string | undefined => {
  const { chars } = named(args, ["chars"]);
  return typeof chars === "string" ? chars : undefined;
};

function cut(text: string, args: Values): string {
  const { length, killwords, end, leeway } = named(args, ["length", "killwords", "end", "leeway"]);
  return truncated(text, typeof length === "number" ? length : 255, {
    killwords: killwords === true,
    ...(typeof end === "string" && { end }),
    ...(typeof leeway === "number" && { leeway }),
  });
}

/** Where a list or text has something. @throws Error where it has not, as Python does */
function placeIn(where: unknown, what: unknown): number {
  const place = typeof where === "string" ? Array.from(where).indexOf(written(what)) : -1;
  const found = Array.isArray(where) ? where.indexOf(what) : place;
  if (found >= 0) return found;
  throw new Error(`${written([what])} is not in ${written(where)}`);
}

/** Behind what a word begins, for `title`. */
const wordStart = /(?<=[-\s({[<])/u;

/** Filters that the interpreter lacks or has otherwise. */
const filters: Readonly<Record<string, Operation>> = {
  choice(operand, _args, random) {
    const list = listOf(operand, "choice");
    if (list.length === 0) throw new Error('"choice" has nothing to choose from');
    return list[Math.floor(random() * list.length)];
  },
  trim: (operand, args) => strip(written(operand), charsIn(args)),
  lower: (operand) => written(operand).toLowerCase(),
  upper: (operand) => written(operand).toUpperCase(),
  capitalize: (operand) => capitalize(written(operand)),
  title: (operand) => written(operand).split(wordStart).map(capitalize).join(""),
  int: (operand, args) => whole(operand, named(args, ["default"])["default"] ?? 0),
  join: (operand, args) =>
    listOf(operand, "join")
      .map(written)
      .join(written(named(args, ["d"])["d"] ?? "")),
  string: (operand) => written(operand),
  list: (operand) => listOf(operand, "list"),
  truncate: (operand, args) => cut(textOf(operand, "truncate"), args),
  length: (operand) => {
    if (typeof operand === "string" || Array.isArray(operand)) return listOf(operand, "length").length;
    if (isObject(operand)) return Object.keys(operand).length;
    throw new Error('"length" takes a list or a text');
  },
};

/** Methods of texts and lists. */
const methods: Readonly<Record<string, Operation>> = {
  join: (operand, [list]) =>
    listOf(list, "join")
      .map((one) => textOf(one, "join"))
      .join(textOf(operand, "join")),
  index: (operand, [what]) => placeIn(operand, what),
  count: (operand, [what]) => listOf(operand, "count").filter((one) => one === what).length,
  lower: (operand) => textOf(operand, "lower").toLowerCase(),
  upper: (operand) => textOf(operand, "upper").toUpperCase(),
  capitalize: (operand) => capitalize(textOf(operand, "capitalize")),
  strip: (operand, [chars]) => strip(textOf(operand, "strip"), chars as string | undefined),
  lstrip: (operand, [chars]) => strip(textOf(operand, "lstrip"), chars as string | undefined, "left"),
  rstrip: (operand, [chars]) => strip(textOf(operand, "rstrip"), chars as string | undefined, "right"),
};

/** Whether two values are equal in Python: a number is none of a text's. */
function areEqual(one: unknown, other: unknown): boolean {
  const known = (value: unknown) => (typeof value === "boolean" ? Number(value) : value);
  if (!isObject(one) || !isObject(other)) return known(one) === known(other);
  return JSON.stringify(one) === JSON.stringify(other);
}

const ours = { filters: new Set(Object.keys(filters)), methods: new Set(Object.keys(methods)) };

const mostCounted = 100_000;

/** `range`. @throws Error beyond what any template counts */
function counted(...bounds: number[]): number[] {
  const [from = 0, to = 0, step = 1] = bounds.length === 1 ? [0, ...bounds] : bounds;
  const count = Math.ceil((to - from) / step);
  if (!Number.isFinite(count) || count > mostCounted)
    throw new Error(`it counts beyond ${mostCounted.toLocaleString("en")}`);
  return Array.from({ length: Math.max(0, count) }, (_, i) => from + i * step);
}

const constants = { true: true, false: false, none, True: true, False: false, None: none };

/** What promptsource puts for its separator in an example's texts. */
const separator = "|||";
const guarded = "\uE000\uE001\uE000";

const guard = (text: string): string => text.replaceAll(separator, guarded);

/** A value as templates have it: with other texts, in lists and objects too. */
function asGiven(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === "string") return change(value);
  if (value === null) return none;
  if (Array.isArray(value)) return value.map((one) => asGiven(one, change));
  if (!isObject(value) || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, asGiven(one, change)]));
}

/** The parts of what a template rendered, without the white space around them. */
export const partsOf = (rendered: string): string[] =>
  rendered.split(separator).map((part) => strip(part.replaceAll(guarded, separator)));

/** What a template calls. */
function functionsOf(random: () => number): (readonly [name: string, (...args: Values) => unknown])[] {
  const operations = (kind: string, table: Readonly<Record<string, Operation>>) =>
    Object.entries(table).map(([name, operation]) => {
      const run = (operand: unknown, ...args: Values) => operation(plain(operand), args.map(plain), random);
      return [kind + name, run] as const;
    });
  return [
    [own.write, (value) => written(plain(value))],
    [own.equal, (one, other) => areEqual(plain(one), plain(other))],
    ["range", (...bounds) => counted(...bounds.map(Number))],
    ...operations(own.filter, filters),
    ...operations(own.method, methods),
  ];
}

/**
 * Reads a template.
 * @throws Error where it is none
 */
export function compilePrompt(text: string): PromptTemplate {
  const program = parse(tokenize(text));
  const known = new Set(["loop", "range", ...Object.keys(constants)]);
  const names: Names = { reads: new Set(), asks: new Set(), sets: known };
  namesIn(program, names);
  const ready = rewritten(program, ours) as typeof program;
  const given = [...names.reads].filter((name) => !names.sets.has(name));
  return {
    needs: given.filter((name) => !names.asks.has(name)),
    render(values, random) {
      const scope = new Environment();
      for (const [name, value] of [...Object.entries(constants), ...functionsOf(random)])
        scope.set(name, value);
      for (const name of given)
        if (Object.hasOwn(values, name)) scope.set(name, asGiven(values[name], guard));
      const { value } = new Interpreter(scope).run(ready);
      const made = String(value);
      if (/[\uD800-\uDFFF]/u.test(made)) throw new Error("it cuts a character in two");
      return made;
    },
  };
}
