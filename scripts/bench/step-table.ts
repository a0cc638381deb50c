/** The tables that step.ts prints. */
import { toMarkdown } from "../../src/report/table.js";
import { median } from "../../src/report/rows.js";
import type { MachineSpeeds } from "./answers.js";
import type { Measured } from "./rounds.js";
import { ratio, spread } from "./spread.js";

/** Of the ways of PyTorch that ran, the one with the fastest step. */
export function bestPeer(measured: readonly Measured[]): Measured | undefined {
  const peers = measured.filter(({ peer }) => peer !== undefined);
  return peers.toSorted((a, b) => median(a.steps) - median(b.steps))[0];
}

/** What products and copies gave each side in the same rounds. */
export function machineTable(measured: readonly Measured[], product: readonly number[]): string {
  const columns: [title: string, key: keyof MachineSpeeds, digits: number][] = [
    ["product 1024 × 1024 × 1024, GFLOP/s", "square", 0],
    [`product ${product.join(" × ")}, GFLOP/s`, "model", 0],
    ["joined to 16 MiB, GB/s", "joined", 1],
    ["joined to 64 MiB, GB/s", "joinedLarge", 1],
    ["copied 64 MiB, GB/s", "copied", 1],
  ];
  const asked = measured.filter(({ machine }) => machine.length > 0);
  return toMarkdown({
    head: ["what the machine gives", "on", ...columns.map(([title]) => title)],
    body: asked.map(({ name, peer, runsOn, machine }) => [
      peer === undefined ? name : "PyTorch",
      runsOn,
      ...columns.map(([, key, digits]) =>
        spread(
          machine.map((speeds) => speeds[key]),
          digits,
        ),
      ),
    ]),
  });
}

/** Milliseconds of each part of a step, medians over rounds. */
export function partMedians({ parts }: Measured): Record<string, number> {
  const names = Object.keys(parts[0] ?? {});
  return Object.fromEntries(names.map((name) => [name, median(parts.flatMap((round) => round[name] ?? []))]));
}

const partNames: readonly [title: string, key: string][] = [
  ["merge", "merge"],
  ["forward", "forward"],
  ["backward", "backward"],
  ["⟨∂θ, τ⟩", "products"],
  ["optimiser", "optimiser"],
];

export function stepTable(measured: readonly Measured[]): string {
  const best = bestPeer(measured);
  return toMarkdown({
    head: [
      "step",
      "ms",
      "× best peer",
      "peak memory",
      ...partNames.map(([title]) => title),
      "evaluation, tokens/s",
    ],
    body: measured.map((side) => {
      const parts = partMedians(side);
      return [
        side === best ? { text: side.name, mark: "best" } : side.name,
        spread(side.steps),
        best ? ratio(side.steps, best.steps) : "–",
        `${(side.peakBytes / 1e9).toFixed(2)} GB`,
        ...partNames.map(([, key]) => parts[key]?.toFixed(0) ?? "in backward"),
        spread(side.tokensPerSecond),
      ];
    }),
  });
}
