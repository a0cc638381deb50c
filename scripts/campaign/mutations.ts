/** Ways to damage an input, seeded. What is known to be wrong afterwards must be refused. */
import type { PRNG } from "seedrandom";

/** A damaged file, and whether no reader may take it. */
export interface Damaged {
  readonly bytes: Buffer;
  /** What was done. */
  readonly how: string;
  readonly mustRefuse?: boolean;
}

export const below = (random: PRNG, count: number): number => Math.floor(random() * count);
export const pick = <T>(random: PRNG, items: readonly T[]): T => {
  const item = items[below(random, items.length)];
  if (item === undefined) throw new Error("nothing to pick from");
  return item;
};

/** Values that do not belong where they are put. */
const strange: readonly unknown[] = [
  null,
  true,
  false,
  "",
  "x",
  "\u001b[2J\n# title | <script>alert(1)</script>",
  "../../../etc/passwd",
  "__proto__",
  "é".repeat(300),
  "9".repeat(5000),
  0,
  1,
  -1,
  0.5,
  1e308,
  -1e-300,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  [],
  [null],
  [[[]]],
  {},
  { a: { b: { c: 1 } } },
  Array.from({ length: 2000 }, (_, i) => i),
];

/** Every object and array within a value. */
function holdersIn(value: unknown): object[] {
  if (typeof value !== "object" || value === null) return [];
  return [value, ...Object.values(value).flatMap(holdersIn)];
}

/** Puts strange values into a JSON value, or takes something out of it. @returns what was done */
function damageValue(random: PRNG, value: object): string {
  const holder = pick(
    random,
    holdersIn(value).filter((one) => Object.keys(one).length > 0),
  );
  const key = pick(random, Object.keys(holder));
  const other = pick(random, Object.keys(holder));
  const kind = below(random, 10);
  if (kind === 0) Reflect.deleteProperty(holder, key);
  else if (kind === 1) Reflect.set(holder, key, Reflect.get(holder, other));
  else if (kind === 2) Reflect.set(holder, `${key}x`, Reflect.get(holder, key));
  else if (kind === 3 && typeof Reflect.get(holder, key) === "number")
    Reflect.set(holder, key, Number(Reflect.get(holder, key)) + pick(random, [-1, 1, 0.5, 1e9, -1e9]));
  else Reflect.set(holder, key, structuredClone(pick(random, strange)));
  return `${["deleted", "copied", "added", "moved"][kind] ?? "set"} ${key.slice(0, 40)}`;
}

/** Damages bytes without knowing what they are. */
export function damageBytes(random: PRNG, bytes: Buffer): Damaged {
  const at = below(random, bytes.length);
  const kind = below(random, 8);
  if (kind === 0) return { bytes: bytes.subarray(0, at), how: `cut at ${at}` };
  if (kind === 1) return { bytes: Buffer.alloc(0), how: "emptied" };
  const flipped = Buffer.from(bytes);
  if (kind === 2) {
    const end = at + 1 + below(random, 40);
    return {
      bytes: Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)]),
      how: `left out ${at} to ${end}`,
    };
  }
  if (kind === 3) {
    const part = bytes.subarray(at, at + 1 + below(random, 200));
    return {
      bytes: Buffer.concat([bytes.subarray(0, at), part, bytes.subarray(at)]),
      how: `doubled from ${at}`,
    };
  }
  const count = pick(random, [1, 1, 1, 4, 30]);
  // The front has the sizes and the kinds.
  for (let i = 0; i < count; i++)
    flipped[below(random, pick(random, [bytes.length, Math.min(bytes.length, 200)]))] = pick(random, [
      0,
      255,
      128,
      10,
      34,
      123,
      below(random, 256),
    ]);
  return { bytes: flipped, how: `${count} bytes set` };
}

/** Whether a text is JSON. */
function isJson(bytes: Buffer): boolean {
  try {
    JSON.parse(bytes.toString());
    return true;
  } catch {
    return false;
  }
}

/** Damages a JSON file: its values, or its text. */
export function damageJson(random: PRNG, bytes: Buffer): Damaged {
  const kind = below(random, 12);
  if (kind === 0) {
    const depth = pick(random, [600, 20_000, 200_000]);
    return {
      bytes: Buffer.from("[".repeat(depth) + "]".repeat(depth)),
      how: `${depth} deep`,
      mustRefuse: true,
    };
  }
  if (kind === 1) return { bytes: Buffer.from(JSON.stringify(pick(random, strange))), how: "another value" };
  if (kind < 4) {
    const damaged = damageBytes(random, bytes);
    return { ...damaged, mustRefuse: !isJson(damaged.bytes) };
  }
  const value = JSON.parse(bytes.toString()) as object;
  const how = Array.from({ length: pick(random, [1, 1, 1, 3]) }, () => damageValue(random, value)).join(", ");
  return { bytes: Buffer.from(JSON.stringify(value)), how };
}

/** Damages lines of text: YAML, CSV, JSON by lines. */
export function damageText(random: PRNG, bytes: Buffer): Damaged {
  if (below(random, 3) === 0) return damageBytes(random, bytes);
  const lines = bytes.toString().split("\n");
  const at = below(random, lines.length);
  const line = lines[at] ?? "";
  const pieces = [
    "*nowhere",
    "&a [*a, *a]",
    "!!js/function 'x'",
    '"',
    "'",
    "\t",
    "{",
    "]",
    ": :",
    "- -",
    "<<: *x",
    "%YAML 9",
    "\u0000",
    "\ufeff",
  ];
  const word = pick(random, [
    pick(random, pieces),
    String(pick(random, strange)),
    JSON.stringify(pick(random, strange)),
  ]);
  const places = [
    () => lines.splice(at, 1),
    () => lines.splice(at, 0, pick(random, lines)),
    () => (lines[at] = line.replace(/[^\s:,{}[\]-]+\s*$/, word)),
    () => (lines[at] = line.replace(/\w+/, word)),
    () => (lines[at] = line + word),
    () => (lines[at] = `  ${line}`),
    () => (lines[at] = line.slice(0, below(random, line.length + 1))),
  ];
  pick(random, places)();
  return { bytes: Buffer.from(lines.join("\n")), how: `line ${at + 1}` };
}
