/**
 * Times training steps, their parts and evaluation of every engine that runs here beside PyTorch: same weights, same
 * batches, in turns. Losses and gradient of the first step are compared; who differs is left out.
 *
 *   node dist/scripts/bench/step.js --case minilm-3,minilm-8,base-8 --data DATA --python PYTHON
 *   [--rounds 5] [--steps-a-round 2] [--engines node,wasm] [--peers stacked,adamerging,bucketed,packed]
 *   [--fresh] [--device cpu|cuda] [--folder KEEP] [--keep-batches FILE.json] [--out FILE.json]
 *
 * Cases: mini-3 (the family that ships), minilm-3 and minilm-8 (checkpoints/minilm), base-8 (a random
 * 12 × 768 encoder; 2 GB of disk), small-4. --fresh starts every process anew in each round, where not all of them
 * fit the memory together (base-8: up to 12 GB each). Prints Markdown: what products and copies give each side, then
 * medians with the lowest and highest round, ratios to the best peer, peak memory of each process.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeText } from "../../src/checkpoint/files.js";
import { packageFolder } from "../../src/package.js";
import { median } from "../../src/report/rows.js";
import { tokensAPass } from "../../src/tasks/batches.js";
import { randomCase, realCase, tokensOf, type Case } from "./cases.js";
import { cores } from "./processes.js";
import { measureInTurns, type Measured } from "./rounds.js";
import { bestPeer, machineTable, partMedians, stepTable } from "./step-table.js";
import { engineSide, peerSide, type Side } from "./workers.js";

const { values: options } = parseArgs({
  options: {
    case: { type: "string", default: "mini-3" },
    data: { type: "string", default: join(packageFolder, "data", "mini") },
    python: { type: "string", default: join(packageFolder, ".venv", "bin", "python") },
    rounds: { type: "string", default: "5" },
    "steps-a-round": { type: "string", default: "2" },
    peers: { type: "string", default: "stacked,adamerging,bucketed,packed" },
    engines: { type: "string", default: "node,wasm" },
    out: { type: "string" },
    "keep-batches": { type: "string" },
    device: { type: "string", default: "cpu" },
    folder: { type: "string" },
    fresh: { type: "boolean", default: false },
  },
});

function makeCase(name: string, folder: string): Promise<Case> {
  const threeTasks = ["rte", "cb", "copa"];
  const makers: Record<string, () => Promise<Case>> = {
    "mini-3": () =>
      realCase({ family: "mini", tasks: threeTasks, k: 3, data: join(packageFolder, "data", "mini") }),
    "minilm-3": () => realCase({ family: "minilm", tasks: threeTasks, k: 3, data: options.data }),
    "minilm-8": () =>
      realCase({ family: "minilm", tasks: [...threeTasks, "sst2", "trec6"], k: 8, data: options.data }),
    "base-8": () => randomCase("encoder", join(folder, "encoder"), 8, 64),
    "small-4": () => randomCase("encoder-small", join(folder, "encoder-small"), 4, 32),
  };
  const make = makers[name];
  if (!make) throw new Error(`--case ${name}: it must be one of ${Object.keys(makers).join(", ")}`);
  return make();
}

const listOf = (text: string): string[] => text.split(",").filter(Boolean);

/** Ours first: a card that is full leaves a peer out, not us. */
const sidesOf = (chosen: Case, batchFile: string): Side[] => [
  ...listOf(options.engines).map((engine) => engineSide(engine, chosen, batchFile)),
  ...listOf(options.peers).map((way) => peerSide(way, chosen, batchFile, options)),
];

/** What --out keeps of a side: its numbers round by round, and their medians. */
const recordOf = (side: Measured) => ({ ...side, ms: median(side.steps), partMedians: partMedians(side) });

async function measureCase(name: string, folder: string): Promise<object> {
  const chosen = await makeCase(name, options.folder ?? folder);
  const batchFile = join(folder, "batches.json");
  await writeText(batchFile, [...chosen.batches]);
  if (options["keep-batches"]) await writeText(options["keep-batches"], [...chosen.batches]);
  const measured = await measureInTurns(sidesOf(chosen, batchFile), {
    rounds: Number(options.rounds),
    stepsARound: Number(options["steps-a-round"]),
    fresh: options.fresh,
    note: (line) => console.error(line),
  });
  const tokens = tokensOf(chosen);
  const product = [Math.min(tokens.real, tokensAPass), chosen.width, 4 * chosen.width];
  const best = bestPeer(measured);
  console.log(
    [
      `${chosen.what}: ${tokens.padded} tokens with padding, ${tokens.real} without; ${options.rounds} rounds ` +
        `in turns, ${cores} cores; medians (lowest–highest)`,
      machineTable(measured, product),
      `Best peer: ${best?.name ?? "none"}. The ratio is of medians (lowest–highest of a round)`,
      stepTable(measured),
      "",
    ].join("\n\n"),
  );
  return { case: name, what: chosen.what, tokens, cores, best: best?.peer, results: measured.map(recordOf) };
}

const folder = await mkdtemp(join(tmpdir(), "train-merge-bench-"));
const cases: object[] = [];
for (const name of listOf(options.case)) {
  cases.push(await measureCase(name, folder));
  if (options.out) await writeText(options.out, cases);
}
await rm(folder, { recursive: true, force: true });
process.exit(0);
