/** The training step of one engine, for scripts/bench/step.ts: reads commands on stdin, prints milliseconds. */
import { createInterface } from "node:readline";
import { loadJob } from "./job.js";

const { step } = await loadJob(process.argv.slice(2) as Parameters<typeof loadJob>[0]);
const say = (value: object) => process.stdout.write(`${JSON.stringify(value)}\n`);

say({ losses: await step() });
for await (const line of createInterface({ input: process.stdin })) {
  const start = performance.now();
  for (let i = 0; i < Number(line); i++) await step();
  say({ ms: (performance.now() - start) / Number(line), peak: process.resourceUsage().maxRSS * 1024 });
}
process.exit(0);
