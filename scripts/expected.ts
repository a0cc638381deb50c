/**
 * Takes what a reproduction found as what it is expected to find from now on: an entry of experiments/<id>/expected.json.
 *
 *   node dist/scripts/expected.js NAME FOLDER…     # FOLDERs as `train-merge reproduce` wrote them, NAME of the family
 *
 * Averages may differ by 0.03 (other engines round otherwise, and training carries that on), other numbers by a twentieth.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { baseOf, isOf, type Expected } from "../src/reproduce/papers.js";
import type { InputHash } from "../src/report/card.js";

interface Found { id: string; tasks: string[]; heldOut: string[]; seeds: number[]; settings: Record<string, unknown>; numbers: Record<string, number>; inputs: InputHash[] }

const [name, ...folders] = process.argv.slice(2);
for (const folder of folders) {
  const found = JSON.parse(await readFile(join(folder, "results.json"), "utf8")) as Found;
  const base = baseOf(found.inputs)!;
  const path = join("experiments", found.id.replace("/", "-"), "expected.json");
  const before: Expected = existsSync(path) ? (JSON.parse(await readFile(path, "utf8")) as Expected) : { families: [] };
  const { tasks, heldOut, seeds, settings: given } = found;
  const numbers = Object.fromEntries(Object.entries(found.numbers).map(([key, value]) => [key, { value: Number(value.toPrecision(5)), tolerance: key.startsWith("average,") ? 0.03 : Number(Math.abs(value / 20).toPrecision(2)) }]));
  const others = before.families.filter((one) => !isOf({ ...one, given: one.given ?? {} }, { ...found, given }));
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `${JSON.stringify({ families: [...others, { name: name!, base, given, tasks, heldOut, seeds, numbers }] }, undefined, 1)}\n`);
  console.log(path);
}
