/**
 * What hashes of the inputs and the look at what was written take of a merge's time.
 *
 *   node dist/scripts/bench/written.js --base FOLDER --models FOLDER,FOLDER
 *   [--methods task-arithmetic,ties] [--rounds 7]
 *
 * Each round merges from disk to disk, with hashes beside it and without in turns, and then times the look again by
 * itself: it is the same work on the same files.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { at } from "../../src/at.js";
import { hashInputs } from "../../src/disk/hashes.js";
import { mergeOnDisk } from "../../src/disk/merge.js";
import { checkPlanned } from "../../src/disk/written.js";
import { planMerge } from "../../src/folder/merge.js";
import { withMembers } from "../../src/mergers/members.js";
import { findMethod } from "../../src/methods/index.js";
import { resolveValues } from "../../src/methods/values.js";
import { toMarkdown } from "../../src/report/table.js";
import { ratio, spread } from "./spread.js";

const { values: options } = parseArgs({
  options: {
    base: { type: "string", default: "checkpoints/mini/base" },
    models: { type: "string", default: "checkpoints/mini/experts/rte,checkpoints/mini/experts/cb" },
    methods: { type: "string", default: "task-arithmetic,ties" },
    rounds: { type: "string", default: "7" },
  },
});
const models = options.models.split(",");
const scratch = await mkdtemp(join(tmpdir(), "written-"));
const head = ["method", "merge, s", "of which the look, s", "its share", "with hashes"];
const body: string[][] = [];

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return (performance.now() - began) / 1000;
}

async function measure(name: string): Promise<void> {
  const method = findMethod(name);
  const values = resolveValues(method, {}, models.length);
  const folders = [options.base, ...models].map((folder, i) => ({
    label: String(i),
    folder,
    on: options.base,
  }));
  await withMembers(folders, { reference: 0, hasBase: true }, async (members, files) => {
    const [base, ...inputs] = members;
    const { plan } = planMerge({ method, values, base, inputs, dtype: "auto", shardSize: 1e12 });
    const merge = () => mergeOnDisk(plan, scratch, { shardBytes: 1e12 });
    const [plain, hashed, looks]: [number[], number[], number[]] = [[], [], []];
    for (let round = 0; round < Number(options.rounds); round++) {
      const ways = [
        async () => plain.push(await seconds(merge)),
        async () => hashed.push(await seconds(() => Promise.all([hashInputs(files.read), merge()]))),
      ];
      for (const way of round % 2 ? ways.toReversed() : ways) await way();
      const began = performance.now() - 1000 * at(plain, round);
      looks.push(await seconds(() => checkPlanned([join(scratch, "model.safetensors")], plan, began)));
    }
    body.push([name, spread(plain, 2), spread(looks, 3), ratio(looks, plain, 3), ratio(hashed, plain)]);
  });
}

try {
  for (const name of options.methods.split(",")) await measure(name);
  console.log(toMarkdown({ head, body }));
} finally {
  await rm(scratch, { recursive: true, force: true });
}
