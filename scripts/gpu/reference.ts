/**
 * What the CPU (TensorFlow) finds on the random families, for the card to be held against: writes
 * reference.json beside this script's source. It takes some minutes and 20 GB of memory and disk.
 *
 *   node dist/scripts/gpu/reference.js [--folder FOLDER] [--only limits,encoder-small,…]
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeText } from "../../src/checkpoint/files.js";
import { packageFolder } from "../../src/package.js";
import type { Outcome, Order } from "./merge-once.js";
import type { RandomStep } from "./random-step.js";

export const referenceFile = join(packageFolder, "scripts", "gpu", "reference.json");

export interface Reference {
  /** Loss and gradient of limits.ts, by family. */
  limits: Record<string, RandomStep>;
  /** Those of sizes.ts, by family and tokens. */
  sizes: Record<string, RandomStep>;
  /** Coefficients by family and way: "encoder flat". */
  merges: Record<string, number[]>;
}

const here = dirname(fileURLToPath(import.meta.url));

function answerOf<T>(script: string, args: string[]): T {
  const out = execFileSync(process.execPath, [join(here, script), ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 1 << 28,
  });
  return JSON.parse(out.trim().split("\n").at(-1)!) as T;
}

const rounded = (values: readonly number[]): number[] => values.map((value) => Number(value.toPrecision(7)));

const short = ({ losses, gradient }: RandomStep): RandomStep => ({
  losses: rounded(losses),
  gradient: rounded(gradient),
});

async function main(): Promise<void> {
  const { values: o } = parseArgs({
    options: {
      folder: { type: "string" },
      only: { type: "string", default: "sizes,encoder-small,wide-small,wide,encoder,decoder" },
    },
  });
  const folder = o.folder ?? (await mkdtemp(join(tmpdir(), "train-merge-gpu-")));
  const reference: Reference = existsSync(referenceFile)
    ? (JSON.parse(readFileSync(referenceFile, "utf8")) as Reference)
    : { limits: {}, sizes: {}, merges: {} };
  for (const name of o.only.split(",")) {
    if (name === "sizes") {
      const steps = answerOf<Record<string, RandomStep>>("sizes.js", ["node", join(folder, name)]);
      reference.sizes = Object.fromEntries(Object.entries(steps).map(([key, step]) => [key, short(step)]));
      await writeText(referenceFile, `${JSON.stringify(reference)}\n`);
      continue;
    }
    if (name.startsWith("wide")) {
      reference.limits[name] = short(answerOf<RandomStep>("limits.js", ["node", name, join(folder, name)]));
      await writeText(referenceFile, `${JSON.stringify(reference)}\n`);
      continue;
    }
    for (const way of ["flat", "pairwise", "tree"] as const) {
      const order: Order = {
        family: name,
        folder: join(folder, name),
        way,
        budget: 8e9,
        backend: "node",
        out: await mkdtemp(join(folder, `out-${name}-${way}-`)),
      };
      const { coefficients, seconds, placement } = answerOf<Outcome>("merge-once.js", [
        JSON.stringify(order),
      ]);
      console.log(`${name} ${way}: ${placement}, ${seconds.toFixed(0)} s`);
      reference.merges[`${name} ${way}`] = rounded(coefficients);
      await writeText(referenceFile, `${JSON.stringify(reference)}\n`);
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
