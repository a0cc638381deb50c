/** Memory under a budget: what the driver, the engine and the plan say, beside PyTorch with stacked deltas. */
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { packageFolder } from "../../src/package.js";
import { nvidiaCard } from "./driver.js";
import { kinds } from "./families.js";
import type { Order, Outcome } from "./merge-once.js";
import { here, lastJson, maxError, node, reference, run, why, type Context, type Found } from "./part.js";

/** Samples the card's memory while something runs: bytes above what was taken before. */
function watchCard(): { stop(): number | undefined } {
  if (!nvidiaCard()) return { stop: () => undefined };
  const child = spawn(
    "nvidia-smi",
    ["-i", "0", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "50"],
    { stdio: ["ignore", "pipe", "ignore"] },
  );
  let first: number | undefined;
  let highest = 0;
  let unfinished = "";
  child.stdout.on("data", (chunk: Buffer) => {
    const lines = (unfinished + chunk.toString()).split("\n");
    unfinished = lines.pop() ?? "";
    for (const line of lines) {
      const mebibytes = Number(line.split(",")[0]);
      if (!Number.isFinite(mebibytes) || line.trim() === "") continue;
      first ??= mebibytes;
      highest = Math.max(highest, mebibytes);
    }
  });
  return {
    stop() {
      child.kill();
      return first === undefined ? undefined : (highest - first) * 2 ** 20;
    },
  };
}

const gigabytes = (bytes: number | undefined): string =>
  bytes === undefined ? "–" : (bytes / 1e9).toFixed(2);

interface MemoryRun {
  readonly family: string;
  readonly way: Order["way"];
  readonly budget: number;
}

/** Flat under every budget; two at a time under the smallest. */
function memoryRuns(emulated: boolean): MemoryRun[] {
  const small: MemoryRun[] = [{ family: "encoder-small", way: "flat", budget: 2e9 }];
  if (emulated) return small;
  return ["encoder", "decoder"].flatMap((family) => [
    ...[2e9, 4e9, 8e9].map((budget): MemoryRun => ({ family, way: "flat", budget })),
    { family, way: "tree", budget: 2e9 },
    { family, way: "pairwise", budget: 2e9 },
  ]);
}

/** PyTorch's peak with the stacked deltas of so many experts under a cap. */
async function torchMemory(
  context: Context,
  family: string,
  experts: number,
  budget: number,
): Promise<string> {
  if (context.deadline - performance.now() < 10_000) return "no time left";
  const config = join(context.work, `${family}.json`);
  writeFileSync(config, JSON.stringify(kinds[family]!.config));
  const ended = await run(context, `memory-torch-${family}-${experts}-${budget / 1e9}`, context.python, [
    join(packageFolder, "scripts", "gpu", "torch_memory.py"),
    config,
    String(experts),
    String(budget),
    "cuda",
  ]);
  const answer = lastJson<{ peak?: number; out_of_memory?: boolean }>(ended);
  if (!answer) return "failed";
  return answer.out_of_memory ? "runs out" : gigabytes(answer.peak);
}

/** Peak of the card's memory under a budget, and coefficients beside the CPU's. */
export async function memory(context: Context): Promise<Found> {
  const known = reference().merges;
  const rows: { cells: string[]; torch: string }[] = [];
  const data: object[] = [];
  let ok = true;
  let compared = 0;
  for (const { family, way, budget } of memoryRuns(context.emulated)) {
    const log = `memory-${family}-${way}-${budget / 1e9}`;
    if (context.deadline - performance.now() < 5_000) {
      rows.push({
        cells: [kinds[family]!.what, way, gigabytes(budget), "no time left", "", "", "", ""],
        torch: "",
      });
      ok = false;
      continue;
    }
    const order: Order = {
      family,
      folder: join(context.work, family),
      way,
      budget,
      backend: "webgpu",
      out: join(context.work, log),
    };
    const watched = watchCard();
    const ended = await node(context, log, join(here, "merge-once.js"), [JSON.stringify(order)]);
    const driver = watched.stop();
    const answer = lastJson<Outcome>(ended);
    const expected = known[`${family} ${way}`];
    const error = answer && expected ? maxError(answer.coefficients, expected) : undefined;
    const experts = way === "flat" ? kinds[family]!.tasks.length : 2;
    // Without a reference there is nothing to be equal to.
    if (!answer || (error !== undefined && !(error <= 1e-4))) ok = false;
    if (error !== undefined) compared++;
    const { coefficients: _, ...rest } = answer ?? { coefficients: [] };
    data.push({ family, way, budget, driver, error, ...rest });
    const cells = [
      kinds[family]!.what,
      `${way}, k = ${kinds[family]!.tasks.length}`,
      gigabytes(budget),
      answer ? answer.placement : why(ended, log),
      gigabytes(answer?.planned),
      gigabytes(answer?.counted),
      gigabytes(driver),
      error?.toExponential(1) ?? "no reference",
    ];
    rows.push({ cells, torch: `${family} ${experts} ${budget}` });
  }
  // Ours first: PyTorch takes the time that is left. A tree's nodes and a chain's are pairs alike.
  const peers = new Map<string, string>();
  for (const { torch } of context.torch ? rows : []) {
    const [family, experts, budget] = torch.split(" ");
    if (family && !peers.has(torch))
      peers.set(torch, await torchMemory(context, family, Number(experts), Number(budget)));
  }
  const body = rows.map(({ cells, torch }) => [...cells, peers.get(torch) ?? "–"]);
  return {
    ok,
    summary:
      `${compared} of ${rows.length} merges were compared with the CPU's` +
      (ok ? ": equal to 1e-4" : "; see the table"),
    tables: [
      {
        title: "Memory in GB, and the largest difference of a coefficient from the CPU's",
        head: [
          "family",
          "way",
          "budget",
          "placement",
          "planned",
          "counted",
          "driver",
          "difference",
          "PyTorch, stacked",
        ],
        body,
      },
    ],
    data,
  };
}
