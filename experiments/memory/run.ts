/**
 * Device peak, process peak, time and bytes read against the number of experts, in each residency,
 * whole and by blocks. The experts of a family come round again with a little noise, so that any number
 * of them are all different. There are two to begin with, so that every k has the same texts: which
 * words a step looks up is not to grow with it.
 *
 *   node dist/experiments/memory/run.js --family minilm --data DATA [--tasks cb,trec6] [--k 2,4,8,16]
 *   [--backend node]
 *
 * Runs that are finished are not run again; --tables-only writes the tables from those there are. Every
 * run is a process of its own (`train-merge` itself); what it reports in run.json is what stands in the
 * table.
 */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  fromFloat32,
  figureSvg,
  linesSpec,
  openCheckpoint,
  svgToPng,
  toFloat32,
  toMarkdown,
  writeWeights,
  type TensorSource,
} from "../../src/index.js";

const { values: o } = parseArgs({
  options: {
    family: { type: "string", default: "minilm" },
    data: { type: "string" },
    tasks: { type: "string", default: "cb,trec6" },
    k: { type: "string", default: "2,4,8,16" },
    backend: { type: "string", default: "node" },
    out: { type: "string", default: "experiments/memory" },
    runs: { type: "string", default: "merged/memory" },
    "tables-only": { type: "boolean", default: false },
  },
});
if (o.data === undefined) throw new Error("--data: name the folder that holds the tasks");
const data = o.data;
const counts = o.k.split(",").map(Number);
const sources = o.tasks.split(",");
const family = join("checkpoints", o.family);
const steps = 3;
/** Small enough that every k fills more than one pass: the activations are then the same for all. */
const microBatch = 256;

/** Noise in (−1, 1) from a seed. */
function* noise(seed: number): Generator<number> {
  for (let state = (seed * 2654435761) >>> 0; ;) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state / 2147483648 - 1;
  }
}

/**
 * Expert number i: one of the family's, with noise a tenth as large as its task vector where it comes
 * round again.
 */
async function makeExpert(i: number): Promise<void> {
  const folder = join(o.runs, "experts", `t${i}`);
  if (existsSync(join(folder, "config.json"))) return;
  const [base, expert] = [
    await openCheckpoint(join(family, "base")),
    await openCheckpoint(join(family, "experts", sources[i % sources.length]!)),
  ];
  await mkdir(folder, { recursive: true });
  const random = noise(i);
  await writeWeights(
    folder,
    expert.names.map((name): TensorSource => {
      const { dtype, shape } = expert.entry(name)!;
      return {
        name,
        dtype,
        shape,
        async bytes() {
          const { bytes } = await expert.read(name);
          const original = base.entry(name) ? (await base.read(name)).bytes : bytes;
          if (i < sources.length || Buffer.compare(bytes, original) === 0) return bytes;
          const values = toFloat32({ dtype, shape, bytes }).slice();
          const from = toFloat32({ dtype, shape, bytes: original });
          const scale =
            Math.sqrt(values.reduce((sum, x, at) => sum + (x - from[at]!) ** 2, 0) / values.length) / 10;
          for (let at = 0; at < values.length; at++) values[at]! += scale * random.next().value!;
          return fromFloat32(values, "F16");
        },
      };
    }),
    5e9,
  );
  await writeFile(join(folder, "config.json"), JSON.stringify(expert.config));
}

/** The source task's data under the expert's name; few examples are enough to run. */
async function makeData(i: number): Promise<void> {
  const folder = join(o.runs, "data", `t${i}`);
  await mkdir(folder, { recursive: true });
  for (const file of ["validation.jsonl", "test.jsonl"]) {
    const lines = (await readFile(join(data, sources[i % sources.length]!, file), "utf8"))
      .split("\n")
      .filter(Boolean);
    await writeFile(join(folder, file), `${lines.slice(0, file === "test.jsonl" ? 8 : 32).join("\n")}\n`);
  }
}

interface Run {
  seconds: { train: number };
  bytesRead: { train: number };
  devicePeakBytes: number;
  peakMemoryBytes: number;
  planned: { device: number; host: number };
}

const most = Math.max(...counts);
for (let i = 0; i < most; i++) {
  await makeExpert(i);
  await makeData(i);
}
const known = JSON.parse(await readFile(join(data, "tasks.json"), "utf8")) as Record<
  string,
  { kind: string; labels: string[] | null }
>;
await writeFile(
  join(o.runs, "data", "tasks.json"),
  JSON.stringify(
    Object.fromEntries(
      Array.from({ length: most }, (_, i) => {
        const { kind, labels } = known[sources[i % sources.length]!]!;
        return [`t${i}`, { kind, labels }];
      }),
    ),
  ),
);

const rows: { place: string; k: number; run: Run }[] = [];
for (const place of ["device", "host", "disk", "device, by blocks", "host, by blocks", "disk, by blocks"]) {
  for (const k of counts) {
    const tasks = Array.from({ length: k }, (_, i) => `t${i}`).join(",");
    const out = join(o.runs, `${place.replaceAll(/[ ,]+/g, "-")}-${k}`);
    if (!existsSync(join(out, "results.json"))) {
      if (o["tables-only"]) continue;
      console.log(`${place}, k = ${k}`);
      execFileSync(
        process.execPath,
        [
          "dist/src/cli/main.js",
          "--tasks",
          tasks,
          "--base",
          join(family, "base"),
          "--experts",
          join(o.runs, "experts"),
          "--data",
          join(o.runs, "data"),
          "--residency",
          place.split(",")[0]!,
          "--blocks",
          place.includes("blocks") ? "on" : "off",
          "--backend",
          o.backend,
          "--steps",
          String(steps),
          "--micro-batch",
          String(microBatch),
          "--eval-every",
          "100",
          "--init",
          "0.2",
          "--out",
          out,
        ],
        { stdio: ["ignore", "ignore", "inherit"] },
      );
    }
    rows.push({ place, k, run: JSON.parse(await readFile(join(out, "run.json"), "utf8")) as Run });
  }
}
const mega = (bytes: number) => (bytes / 1e6).toFixed(0);
const of = (place: string, k: number) => rows.find((row) => row.place === place && row.k === k)?.run;
const places = [...new Set(rows.map(({ place }) => place))];
const [least, largest] = [Math.min(...counts), most];
const cellOf = (run: Run | undefined, cell: (run: Run) => string): string => (run ? cell(run) : "not run");
const table = (cell: (run: Run) => string, last?: (place: string) => string) =>
  toMarkdown({
    head: [
      "task vectors",
      ...counts.map((k) => `k = ${k}`),
      ...(last ? [`k = ${largest} against ${least}`] : []),
    ],
    body: places.map((place) => [
      place,
      ...counts.map((k) => cellOf(of(place, k), cell)),
      ...(last ? [last(place)] : []),
    ]),
  });
const growth = (place: string): string => {
  const [few, many] = [of(place, least), of(place, largest)];
  return few && many ? `${(100 * (many.devicePeakBytes / few.devicePeakBytes - 1)).toFixed(1)} %` : "not run";
};
await writeFile(
  join(o.out, "results.md"),
  [
    `Family ${o.family} (${o.tasks}, repeated with noise), engine ${o.backend}, ${steps} ` +
      `steps of 16 examples a task, ${microBatch} tokens a pass.`,
    "",
    "Device peak in MB, the back end's own count (planned)",
    "",
    table((run) => `${mega(run.devicePeakBytes)} (${mega(run.planned.device)})`, growth),
    "",
    "Peak of the whole process in MB",
    "",
    table((run) => mega(run.peakMemoryBytes)),
    "",
    "Seconds a step, evaluation before and after included (the work grows with k: a batch a task)",
    "",
    table((run) => (run.seconds.train / steps).toFixed(2)),
    "",
    "MB read from files a step, evaluation before and after included",
    "",
    table((run) => mega(run.bytesRead.train / steps)),
    "",
    "![device peak against k](memory.png)",
    "",
  ].join("\n"),
);
const svg = await figureSvg(
  linesSpec({
    title: `Device peak against the number of experts (${o.family}, ${o.backend})`,
    x: "experts",
    y: "MB",
    points: rows.map(({ place, k, run }) => ({ x: k, y: run.devicePeakBytes / 1e6, series: place })),
  }),
);
await writeFile(join(o.out, "memory.png"), svgToPng(svg));
console.log(await readFile(join(o.out, "results.md"), "utf8"));
