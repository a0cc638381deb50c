/**
 * Keeps what a reproduction found, one a family: its report and pictures in experiments/<id>/<NAME>,
 * its numbers as what is expected from now on in expected.json, and a line in experiments/README.md.
 *
 *   node dist/scripts/keep.js NAME FOLDER…     # FOLDERs as `train-merge reproduce` wrote them, NAME of the family
 *   node dist/scripts/keep.js                  # the list of all alone
 *
 * Averages may differ by 0.03 (other engines round otherwise, and training carries that on), other
 * numbers by a twentieth.
 */
import { existsSync } from "node:fs";
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { InputHash } from "../src/report/card.js";
import { toMarkdown } from "../src/report/table.js";
import { experiments } from "../src/reproduce/index.js";
import { rowsFile } from "../src/reproduce/kept-rows.js";
import { baseOf, isOf, readExpected, type Expected } from "../src/reproduce/papers.js";

type Kept = Expected["families"][number];
interface Found {
  id: string;
  tasks: string[];
  heldOut: string[];
  seeds: number[];
  settings: Record<string, unknown>;
  numbers: Record<string, number>;
  inputs: InputHash[];
  worked: number;
  minutes: number;
  claims: NonNullable<Kept["claims"]>;
}

const families: Record<string, string> = {
  mini: "the synthetic family",
  minilm: "MiniLM's experts",
  vit: "our ViT's experts",
  sizes: "four synthetic families",
  "mini-dev": "the synthetic family's other tasks",
  "minilm-dev": "MiniLM's experts of other tasks",
  "minilm-eight": "MiniLM's experts of eight tasks",
  "minilm-sizes": "MiniLM of two sizes, each as it is and tuned on other tasks",
};
const called = (name: string): string => families[name] ?? name;
const folderOf = (id: string): string => join("experiments", id.replace("/", "-"));

const [name, ...folders] = process.argv.slice(2);
for (const folder of folders) {
  const found = JSON.parse(await readFile(join(folder, "results.json"), "utf8")) as Found;
  const { id, tasks, heldOut, seeds, settings: given, claims, worked, minutes } = found;
  const path = join(folderOf(id), "expected.json");
  const { families: before } = await readExpected(experiments.find((one) => one.id === id)!);
  const numbers = Object.fromEntries(
    Object.entries(found.numbers).map(([key, value]) => [
      key,
      {
        value: Number(value.toPrecision(5)),
        tolerance: key.startsWith("average,") ? 0.03 : Number(Math.abs(value / 20).toPrecision(2)),
      },
    ]),
  );
  const mine: Kept = {
    name: name!,
    base: baseOf(found.inputs)!,
    given,
    tasks,
    heldOut,
    seeds,
    numbers,
    minutes: Number((worked || minutes).toFixed(1)),
    claims,
  };
  await mkdir(dirname(path), { recursive: true });
  const others = before.filter((one) => one.name !== name && !isOf(one, { ...found, given }));
  const families = [...others, mine].sort((a, b) => (a.name < b.name ? -1 : 1));
  await writeFile(path, `${JSON.stringify({ families }, undefined, 1)}\n`);
  const to = join(folderOf(id), name!);
  await rm(to, { recursive: true, force: true });
  await mkdir(to);
  // The page and the rows are large, and the command makes them; pictures of an earlier run may stand
  // beside this one's.
  const report = await readFile(join(folder, "report.md"), "utf8");
  for (const file of [
    "report.md",
    ...(await readdir(folder)).filter(
      (one) => one === rowsFile || (one.endsWith(".png") && report.includes(`](${one})`)),
    ),
  ])
    await copyFile(join(folder, file), join(to, file));
  console.log(to);
}

/** What is said of claims: how many are settled, and which are not. */
function saidOf(claims: NonNullable<Kept["claims"]>): string {
  const told = claims.filter(({ holds }) => holds !== undefined);
  if (told.length === 0) return "–";
  const as = (...verdict: string[]) =>
    told.filter((one) => verdict.includes(one.verdict ?? (one.holds ? "yes" : "no")));
  const named = (what: string, some: typeof told) =>
    some.length > 0 ? [`${what}: ${some.map(({ text }) => text).join("; ")}`] : [];
  const parts = [
    `${as("yes").length} of ${told.length}`,
    ...named("not", as("no")),
    ...named("not settled", as("not settled")),
  ];
  const isOld = told.every(({ verdict }) => verdict === undefined);
  return parts.join("; ") + (isOld ? " (by the averages alone)" : "");
}

const body: string[][] = [];
for (const experiment of experiments) {
  const { families: kept } = await readExpected(experiment);
  const here = kept.filter((one) => existsSync(join(folderOf(experiment.id), one.name, "report.md")));
  const links = [
    ...new Map(here.map((one) => [one.name, `[on ${called(one.name)}](${one.name}/report.md)`])).values(),
  ];
  const readme = join(folderOf(experiment.id), "README.md");
  if (existsSync(readme) && links.length)
    await writeFile(
      readme,
      (await readFile(readme, "utf8")).replace(/^What came out:.*$/m, `What came out: ${links.join(", ")}.`),
    );
  for (const { name: family, tasks, heldOut, seeds, claims = [], minutes } of here) {
    const held = saidOf(claims);
    body.push([
      `[${experiment.id}](${experiment.id.replace("/", "-")}/README.md)`,
      `[${called(family)}](${experiment.id.replace("/", "-")}/${family}/report.md)`,
      `${tasks.join(", ")}${heldOut.length ? ` (held out: ${heldOut.join(", ")})` : ""}`,
      seeds.join(", "),
      minutes === undefined ? "–" : minutes.toFixed(1),
      held,
    ]);
  }
}
const head = ["command", "family", "tasks", "seeds", "minutes", "claims that hold"];
await writeFile(
  join("experiments", "README.md"),
  `# What came out

Each folder holds one table or figure: what it runs, what the paper prints, what the command is expected to
find. The commands below were run, and \`scripts/keep.ts\` kept their reports and wrote this list. Minutes are
those of its merges and searches (where it has none, of the whole run) on two cores, often beside other work.
How many of the claims hold (the paper's; of an ablation, what one would expect) is counted from the same run;
one that does not, or is not settled, is named. Where \`rows.csv.gz\` lies beside a report, every test example's answer
is kept, and a claim is settled only as far as these bear it out (paired draws of examples and seeds, 95 %, corrected
for the number of claims, 1,000 examples at least); what was kept before goes by the averages alone.

${toMarkdown({ head, body }).replaceAll("---:", "---")}

What the ablations say of the defaults: [defaults.md](defaults.md). The other folders are experiments of our
own: [methods](methods), [real-family](real-family), [vit](vit), [decoder](decoder),
[lora](lora), [tree](tree), [packing](packing), [memory](memory), [disk](disk), [t0-3b](t0-3b),
[qwen3-1.7b](qwen3-1.7b), [qwen3-8b](qwen3-8b), [clip-vit-b32](clip-vit-b32), [mpnet](mpnet), [gpu](gpu).
`,
);
