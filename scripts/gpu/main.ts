/**
 * The proof on a card: finds the driver, runs the parts one after the other, writes results.json,
 * results.md and a log a part. The bundle (bundle.ts) starts it; in a clone it runs as it is.
 *
 *   node dist/scripts/gpu/main.js [--parts op,step] [--out gpu-results] [--work FOLDER] [--minutes 8]
 *   [--python python3]
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, release, totalmem } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { toMarkdown } from "../../src/report/table.js";
import { findDriver, nvidiaCard, type Driver } from "./driver.js";
import type { Found, Part } from "./part.js";
import { parts } from "./parts.js";

interface Result extends Found {
  readonly name: string;
  readonly what: string;
  readonly seconds: number;
}

const here = dirname(fileURLToPath(import.meta.url));

/** What doctor finds of the webgpu engine, in a process that has the driver's environment. */
function probe({ env }: Driver): { found: boolean; automatic: boolean; detail?: string; problem?: string } {
  const program = join(here, "..", "..", "src", "backend", "probe.js");
  const { stdout, stderr, signal } = spawnSync(process.execPath, [program, "webgpu"], {
    encoding: "utf8",
    env: { ...process.env, ...env },
    timeout: 60_000,
  });
  const line = stdout?.split("\n").findLast((text) => text.startsWith("{"));
  if (line !== undefined) return JSON.parse(line) as ReturnType<typeof probe>;
  return {
    found: false,
    automatic: false,
    problem: signal
      ? `its process ended with ${signal}`
      : ((stderr ?? "").trim().split("\n").at(-1) ?? "no answer"),
  };
}

function hasTorch(python: string): boolean {
  try {
    execFileSync(python, ["-c", "import torch, transformers; assert torch.cuda.is_available()"], {
      stdio: "ignore",
      timeout: 60_000,
    });
    return true;
  } catch {
    return false;
  }
}

function markdown(
  machine: Record<string, unknown>,
  links: readonly string[],
  results: readonly Result[],
): string {
  const lines = [
    "# train-merge on a card",
    "",
    ...Object.entries(machine).map(([name, value]) => `* ${name}: ${String(value)}`),
    "",
    ...links.map((link) => `* ${link}`),
    "",
  ];
  lines.push(
    toMarkdown({
      head: ["part", "found", "reached", "s"],
      body: results.map(({ name, summary, ok, seconds }) => [
        name,
        summary,
        ok ? "yes" : "no",
        seconds.toFixed(0),
      ]),
    }),
    "",
  );
  for (const { name, tables = [] } of results) {
    for (const { title, head, body } of tables)
      lines.push(
        `## ${name}: ${title}`,
        "",
        toMarkdown({ head: [...head], body: body.map((row) => [...row]) }),
        "",
      );
  }
  return lines.join("\n");
}

async function main(): Promise<number> {
  const { values: o } = parseArgs({
    options: {
      parts: { type: "string", default: parts.map(({ name }) => name).join(",") },
      out: { type: "string", default: "gpu-results" },
      work: { type: "string" },
      minutes: { type: "string", default: "8" },
      python: { type: "string", default: "python3" },
      libraries: { type: "string", default: process.env["TRAIN_MERGE_GPU_LIBRARIES"] ?? "" },
    },
  });
  const started = performance.now();
  const end = started + 60_000 * Number(o.minutes);
  const log = (text: string) =>
    process.stdout.write(`${((performance.now() - started) / 1000).toFixed(0).padStart(4)} s  ${text}\n`);
  const chosen = o.parts.split(",").map((name): Part => {
    const part = parts.find((one) => one.name === name);
    if (!part)
      throw new Error(`--parts ${name}: it must be one of ${parts.map((one) => one.name).join(", ")}`);
    return part;
  });
  const out = resolve(o.out);
  const work = o.work ? resolve(o.work) : join(out, "work");
  for (const folder of [out, work]) mkdirSync(folder, { recursive: true });

  const driver = findDriver(o.libraries);
  driver.links.forEach(log);
  if (driver.missing !== undefined) log(`missing link: ${driver.missing}`);
  const card = nvidiaCard();
  const engine = probe(driver);
  if (!engine.found && driver.missing === undefined)
    log(`missing link: the driver loads, but Dawn finds no card (${engine.problem ?? "no reason given"})`);
  const emulated = engine.found && !engine.automatic;
  const torch = card !== undefined && hasTorch(o.python);
  const machine = {
    date: new Date().toISOString().slice(0, 10),
    card: card
      ? `${card.name}, driver ${card.driver}, ${(card.memory / 1e9).toFixed(0)} GB`
      : (engine.detail ?? "none"),
    webgpu: engine.found
      ? `${engine.detail ?? "found"}${emulated ? " (emulated on the CPU: sizes are small, speeds mean nothing)" : ""}`
      : `no: ${engine.problem ?? driver.missing ?? ""}`,
    processor:
      `${cpus()[0]?.model ?? "unknown"}, ${availableParallelism()} cores, ` +
      `${(totalmem() / 1e9).toFixed(0)} GB; Linux ${release()}, Node ${process.version}`,
    PyTorch: torch ? "with CUDA, beside it" : "not beside it (no card, or no PyTorch with CUDA)",
  };
  Object.entries(machine).forEach(([name, value]) => log(`${name}: ${value}`));
  const results: Result[] = [];
  const save = () => {
    writeFileSync(
      join(out, "results.json"),
      `${JSON.stringify({ machine, links: driver.links, missing: driver.missing, results }, undefined, 2)}\n`,
    );
    writeFileSync(
      join(out, "results.md"),
      markdown(
        machine,
        driver.missing === undefined ? driver.links : [...driver.links, `missing link: ${driver.missing}`],
        results,
      ),
    );
  };
  for (const { name, what, limit, run } of engine.found ? chosen : []) {
    const from = performance.now();
    // A card that the CPU emulates needs longer.
    const deadline = Math.min(end, from + 1000 * limit * (emulated ? 12 : 1));
    if (deadline - from < 3000) {
      results.push({ name, what, ok: false, summary: "not run: the time was over", seconds: 0 });
      continue;
    }
    log(`${name}: ${what}`);
    const context = { driver, emulated, work, out, python: o.python, torch, deadline };
    const found = await run(context).catch((error: unknown): Found => ({
      ok: false,
      summary: `it failed: ${String(error)}`,
    }));
    const seconds = (performance.now() - from) / 1000;
    results.push({ name, what, seconds, ...found });
    log(`${name}: ${found.summary} (${found.ok ? "reached" : "not reached"}, ${seconds.toFixed(0)} s)`);
    save();
  }
  save();
  if (o.work === undefined) rmSync(work, { recursive: true, force: true });
  log(`written to ${out} (results.md, results.json, a log a part)`);
  return engine.found && existsSync(join(out, "results.json")) && results.every(({ ok }) => ok) ? 0 : 1;
}

try {
  process.exit(await main());
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(2);
}
