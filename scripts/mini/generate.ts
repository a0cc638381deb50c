/**
 * The synthetic tasks of the family that ships: short English sentences put together from word lists,
 * in the shapes of RTE, CB, COPA, SST-2 and TREC-6. Every text is ours; no sentence of those sets is in
 * it.
 */
import seedrandom from "seedrandom";

export interface Row {
  text_a: string;
  text_b?: string;
  choices?: string[];
  label: number;
}

/** A source of seeded choices. */
export interface Dice {
  one<T>(items: readonly T[]): T;
  /** Two different items. */
  two<T>(items: readonly T[]): [T, T];
  chance(p: number): boolean;
}

export function dice(seed: string): Dice {
  const random = seedrandom(seed);
  const one = <T>(items: readonly T[]) => items[Math.floor(random() * items.length)]!;
  return {
    one,
    two(items) {
      const first = one(items);
      const rest = items.filter((item) => item !== first);
      return [first, one(rest)];
    },
    chance: (p) => random() < p,
  };
}

const people = [
  "anna",
  "boris",
  "clara",
  "david",
  "elena",
  "farid",
  "grace",
  "hugo",
  "ines",
  "jonas",
  "karim",
  "laura",
];
const places = ["garden", "kitchen", "market", "office", "park", "school", "station", "village"];
const adjectives = ["big", "small", "old", "new", "red", "blue", "clean", "heavy"];
const kinds: Record<string, string[]> = {
  fruit: ["apple", "pear", "plum", "peach"],
  animal: ["dog", "horse", "goat", "duck"],
  tool: ["hammer", "saw", "drill", "axe"],
  vehicle: ["car", "truck", "bike", "boat"],
};
const nouns = Object.values(kinds).flat();
const kindOf = (noun: string): string => Object.keys(kinds).find((kind) => kinds[kind]!.includes(noun))!;
const verbs = ["bought", "sold", "found", "lost", "painted", "cleaned"];

/** Does the first text entail the second? The thing may be made general (entailed), or be of another kind (not). */
function rte(d: Dice): Row {
  const who = d.one(people);
  const did = d.one(verbs);
  const what = d.one(nouns);
  const other = d.one(nouns.filter((noun) => kindOf(noun) !== kindOf(what)));
  const entailed = d.chance(0.5);
  const shown = entailed ? what : other;
  return {
    text_a: `${who} ${did} a ${d.one(adjectives)} ${what} in the ${d.one(places)} .`,
    text_b: `${who} ${did} a ${d.chance(0.5) ? shown : kindOf(shown)} .`,
    label: entailed ? 0 : 1,
  };
}

const factive = ["knows", "realised", "noticed", "remembers", "saw"];
const denying = ["denied", "doubts", "pretended", "lied", "disproved"];
const open = ["thinks", "hopes", "wonders", "guessed", "heard"];

/** Is the clause asserted? The verb above it decides; a negation of a factive or an open verb changes nothing. */
function cb(d: Dice): Row {
  const [speaker, who] = d.two(people);
  const clause = `${who} ${d.one(verbs)} the ${d.one(nouns)}`;
  const label = d.one([0, 1, 2]);
  const verb = d.one([factive, denying, open][label]!);
  const start = d.chance(0.5) ? `${d.one(["yesterday", "today", "last week"])} ` : "";
  const never = label !== 1 && d.chance(0.3) ? "never " : "";
  return { text_a: `${start}${speaker} ${never}${verb} that ${clause} .`, text_b: `${clause} .`, label };
}

/** Cause and effect, as pairs of sentence frames over one subject. */
const causes: [string, string][] = [
  ["fell on the stone floor", "broke into pieces"],
  ["stood in the rain", "got wet"],
  ["lay in the hot sun", "became warm"],
  ["was left in the snow", "turned cold"],
  ["rolled in the mud", "was dirty"],
  ["was washed with soap", "looked clean"],
  ["was thrown into the fire", "burned"],
  ["was kept in the dark cellar", "collected dust"],
  ["was hidden under the bed", "could not be found"],
  ["was put on sale", "was sold quickly"],
  ["was painted last night", "had a new colour"],
  ["was tied to a balloon", "floated up"],
];
const things = ["cup", "chair", "book", "lamp", "basket", "clock", "toy", "blanket", "box", "bottle"];

/** Which ending is the cause, or the result? The other ending belongs to another pair. */
function copa(d: Dice): Row {
  const [pair, wrong] = d.two(causes);
  const thing = d.one(things);
  const askCause = d.chance(0.5);
  const [given, asked] = askCause ? [1, 0] : [0, 1];
  const right = `it ${pair[asked]} .`;
  const other = `it ${wrong[asked]} .`;
  const label = d.chance(0.5) ? 0 : 1;
  const question = askCause ? "what was the cause of this ?" : "what happened as a result ?";
  return {
    text_a: `the ${d.one(adjectives)} ${thing} ${pair[given]} . ${question}`,
    choices: label === 0 ? [right, other] : [other, right],
    label,
  };
}

const good = ["brilliant", "charming", "funny", "moving", "clever", "lovely", "fresh", "warm"];
const bad = ["dull", "clumsy", "boring", "weak", "empty", "cold", "stale", "silly"];
const parts = ["film", "plot", "acting", "music", "ending", "story"];

/** Is the review good? "not" turns a word round, and what stands behind "but" decides. */
function sst2(d: Dice): Row {
  const opinion = (positive: boolean) => {
    const negated = d.chance(0.3);
    return (
      `the ${d.one(parts)} is ` +
      `${negated ? "not " : ""}${d.one(["", "very ", "quite "])}${d.one(positive !== negated ? good : bad)}`
    );
  };
  const positive = d.chance(0.5);
  const text_a = d.chance(0.5)
    ? `${opinion(!positive)} but ${opinion(positive)} .`
    : `${opinion(positive)} .`;
  return { text_a, label: positive ? 1 : 0 };
}

const shortNames = ["abc", "fbx", "krt", "lmo", "pqz", "dnv", "gsh", "jtw", "mcy", "rvk", "uxe", "zib"];

/** What does the question ask for? */
function trec6(d: Dice): Row {
  const label = d.one([0, 1, 2, 3, 4, 5]);
  const [who, what, where, like] = [d.one(people), d.one(nouns), d.one(places), d.one(adjectives)];
  const did = d.one(verbs);
  const tail = d.one(["", ` in the ${d.one(places)}`, ` near the ${d.one(places)}`, ` for ${d.one(people)}`]);
  const questions: string[][] = [
    [
      `what is a ${what}${tail} ?`,
      `why is the ${what} ${like} ?`,
      `how does a ${what} work${tail} ?`,
      `what does it mean that the ${what} is ${like} ?`,
    ],
    [
      `what did ${who} buy in the ${where} ?`,
      `which ${kindOf(what)} is ${like} ?`,
      `what colour is the ${what}${tail} ?`,
      `what kind of ${kindOf(what)} was lost ?`,
    ],
    [
      `what does ${d.one(shortNames)} stand for${tail} ?`,
      `what is the short form of ${what}${tail} ?`,
      `what is ${d.one(shortNames)}${tail} ?`,
    ],
    [`who ${did} the ${what} ?`, `whose ${what} is ${like}${tail} ?`, `which person ${did} a ${what} ?`],
    [
      `how many people are in the ${where} ?`,
      `when was the ${what} lost ?`,
      `how much is a ${like} ${what}${tail} ?`,
      `what year was the ${where} built ?`,
    ],
    [
      `where is the ${what}${tail} ?`,
      `where did ${who} go ?`,
      `in which ${where} is the ${what} ?`,
      `what place has the ${like} ${what} ?`,
    ],
  ];
  return { text_a: d.one(questions[label]!), label };
}

export const tasks: Record<
  string,
  { kind: string; labels: string[] | null; what: string; make: (d: Dice) => Row }
> = {
  rte: {
    kind: "pair",
    labels: ["entailment", "not_entailment"],
    what: "does the text entail the hypothesis?",
    make: rte,
  },
  cb: {
    kind: "pair",
    labels: ["entailment", "contradiction", "neutral"],
    what: "is the clause asserted?",
    make: cb,
  },
  copa: { kind: "choice", labels: null, what: "which sentence is the cause or the result?", make: copa },
  sst2: { kind: "single", labels: ["negative", "positive"], what: "sentiment of a review", make: sst2 },
  trec6: {
    kind: "single",
    labels: ["DESC", "ENTY", "ABBR", "HUM", "NUM", "LOC"],
    what: "what does the question ask for?",
    make: trec6,
  },
};

/** `count` different rows of a task, none of which stands in `taken`; what is drawn is added to it. */
export function draw(task: string, seed: string, count: number, taken: Set<string>): Row[] {
  const d = dice(`${seed}/${task}`);
  const rows: Row[] = [];
  for (let tries = 0; rows.length < count; tries++) {
    if (tries > count * 200) throw new Error(`${task}: too few different rows for ${count}`);
    const row = tasks[task]!.make(d);
    const key = `${task}|${row.text_a}|${row.text_b ?? ""}|${[...(row.choices ?? [])].sort().join("|")}`;
    if (taken.has(key)) continue;
    taken.add(key);
    rows.push(row);
  }
  return rows;
}
