import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import { readJson, writeText } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { gateNames, gates, type GateName } from "../merge/gates.js";
import type { InputHash } from "../report/card.js";
import { escapeHtml, toHtml } from "../report/formats.js";
import { heatmapSpec } from "../report/heatmap.js";
import { mean } from "../report/interval.js";
import { linesSpec } from "../report/lines.js";
import { duration, size } from "../report/memory.js";
import { pageHtml, pairsHtml, type Section } from "../report/page.js";
import { resultRow } from "../report/rows.js";
import { resultTable, tableCaption } from "../report/table.js";

const results = z.object({
  rows: z.array(resultRow),
  synthetic: z.boolean().default(false),
  settings: z.record(z.string(), z.unknown()),
  inputs: z.array(z.object({ role: z.string(), file: z.string(), sha256: z.string() })).default([]),
});
const runFile = z.object({
  version: z.string(),
  engine: z.string(),
  platform: z.string(),
  seconds: z.record(z.string(), z.number()).default({}),
  peakMemoryBytes: z.number().optional(),
  devicePeakBytes: z.number().optional(),
  planned: z.object({ device: z.number().optional() }).loose().optional(),
});
const coefficients = z.object({
  tasks: z.array(z.string()),
  layers: z.array(z.object({ id: z.string() })),
  entries: z.array(
    z.object({ layer: z.string(), task: z.string(), raw: z.number(), coefficient: z.number() }),
  ),
});
const record = z.object({
  step: z.number(),
  loss: z.number().optional(),
  validation: z.object({ loss: z.number(), accuracy: z.array(z.number()) }).optional(),
  coefficients: z.array(z.number()).optional(),
});
type LogLine = z.infer<typeof record>;

async function read<T>(folder: string, file: string, schema: z.ZodType<T>): Promise<T | undefined> {
  const path = join(folder, file);
  if (!existsSync(path)) return undefined;
  const parsed = schema.safeParse(await readJson(path));
  if (!parsed.success)
    throw new UserError(
      `${path}: not written by this version of train-merge (${parsed.error.issues[0]!.path.join(".")})`,
    );
  return parsed.data;
}

const inputRow = ({ role, file, sha256 }: InputHash): string =>
  `<tr><td>${escapeHtml(role)}</td><td>${escapeHtml(file)}</td><td><code>${sha256}</code></td></tr>`;

/** A run's log; empty where it has none, as a tree's root. */
export async function readLog(folder: string): Promise<LogLine[]> {
  const path = join(folder, "training.jsonl");
  if (!existsSync(path)) return [];
  return (await readFile(path, "utf8"))
    .split("\n")
    .filter(Boolean)
    .map((line) => record.parse(JSON.parse(line)));
}

/** At most so many, the first and the last among them. */
const thinned = <T>(items: readonly T[], most: number): T[] =>
  items.filter(
    (_, i) =>
      items.length <= most || i === items.length - 1 || i % Math.ceil((items.length - 1) / (most - 1)) === 0,
  );

function curves(log: readonly LogLine[], tasks: readonly string[]): Section[] {
  const losses = thinned(
    log.filter(({ loss }) => loss !== undefined),
    400,
  ).map(({ step, loss }) => ({ x: step, y: loss!, series: "training, all tasks" }));
  const scored = log.filter(({ validation }) => validation);
  const held = scored.map(({ step, validation }) => ({
    x: step,
    y: validation!.loss,
    series: "held out, all tasks",
  }));
  if (losses.length + held.length === 0) return [];
  return [
    {
      title: "Loss along the training",
      figure: linesSpec({
        title: "",
        x: "step",
        y: "loss, summed over tasks",
        spacing: "linear",
        points: [...losses, ...held],
      }),
    },
    {
      title: "Accuracy along the training",
      note: "On the validation examples that the best step is chosen by.",
      figure: linesSpec({
        title: "",
        x: "step",
        y: "accuracy, %",
        spacing: "linear",
        zero: false,
        points: tasks.flatMap((task, i) =>
          scored.map(({ step, validation }) => ({
            x: step,
            y: 100 * validation!.accuracy[i]!,
            series: task,
          })),
        ),
      }),
    },
  ];
}

/** How many coefficients an expert has, how many of them do nothing, and how many the gate holds. */
function health({ tasks, entries }: z.infer<typeof coefficients>, gate: GateName | undefined): Section {
  const body = tasks.map((task) => {
    const mine = entries.filter((entry) => entry.task === task);
    const dead = mine.filter(({ coefficient }) => Math.abs(coefficient) < 0.01).length;
    // A tree's coefficients are products of its nodes': no gate has them.
    const held =
      gate === undefined
        ? "–"
        : String(
            mine.filter(
              ({ raw }) => gates[gate].slope(raw) < 0.05 * gates[gate].slope(gates[gate].inverse(0.5)),
            ).length,
          );
    return [
      task,
      String(mine.length),
      mean(mine.map(({ coefficient }) => coefficient)).toFixed(3),
      Math.min(...mine.map(({ coefficient }) => coefficient)).toFixed(3),
      Math.max(...mine.map(({ coefficient }) => coefficient)).toFixed(3),
      String(dead),
      held,
    ];
  });
  return {
    title: "Dead and saturated coefficients",
    note:
      "Dead: within 0.01 of nothing. Saturated: where the " +
      `gate${gate === undefined ? "" : ` (${gate})`} has less than a twentieth of its slope, ` +
      "so that training no longer moves it.",
    html: toHtml({ head: ["expert", "coefficients", "mean", "least", "most", "dead", "saturated"], body }),
  };
}

/** Numbers past which a page's heat-map shows fewer steps. */
const mostCells = 150_000;

/**
 * The report of a finished merge as one HTML page, made from its folder alone: results, curves, the
 * heat-map with a slider over the training, dead and saturated coefficients, the tree, memory and
 * times, settings, inputs with their hashes.
 * @throws UserError where the folder holds no finished merge
 */
export async function reportHtml(folder: string): Promise<string> {
  const found = await read(folder, "results.json", results);
  if (!found)
    throw new UserError(`${folder}: there is no results.json in it; a report is made of a finished run`);
  const { rows, synthetic, settings, inputs } = found;
  const run = await read(folder, "run.json", runFile);
  const table = await read(folder, "coefficients.json", coefficients);
  // A tree's root has a log only where it was polished.
  const tree = settings["tree"] as { polish?: number } | undefined;
  const log = tree && !tree.polish ? [] : await readLog(folder);
  const tasks = Array.isArray(settings["tasks"]) ? (settings["tasks"] as string[]) : [];
  const gate = gateNames.find((name) => name === settings["gate"]) ?? "identity";
  const sections: Section[] = [
    {
      title: "Results",
      note: tableCaption(rows, synthetic, Number(settings["valPerTask"] ?? 0)),
      html: toHtml(resultTable(rows)),
    },
    ...curves(log, tasks),
  ];
  if (table) {
    const [k, names] = [table.tasks.length, table.layers.map(({ id }) => id)];
    const byPlace = new Map(
      table.entries.map(({ layer, task, coefficient }) => [`${layer}\n${task}`, coefficient]),
    );
    const values = names.map((layer) => table.tasks.map((task) => byPlace.get(`${layer}\n${task}`)!));
    const shots = log.filter((one) => one.coefficients?.length === names.length * k);
    const history = thinned(shots, Math.max(2, Math.floor(mostCells / (names.length * k)))).map(
      ({ step, coefficients: at }) => ({
        step,
        values: names.map((_, row) => at!.slice(row * k, (row + 1) * k)),
      }),
    );
    sections.push(
      {
        title: "Coefficients",
        note:
          `What each expert has of each layer: ${names.length} layers × ${k} experts. The pointer ` +
          `shows a coefficient${history.length ? ", the slider the training; on its right is what was written" : ""}.`,
        figure: heatmapSpec({ title: "", tasks: table.tasks, layers: names, values, history }),
      },
      health(table, tree ? undefined : gate),
    );
  }
  for (const [file, title] of [
    ["tree.svg", "The tree"],
    ["similarity.svg", "Similarity of the task vectors"],
  ] as const) {
    const path = join(folder, file);
    if (existsSync(path))
      sections.push({
        title,
        html: `<div class="light">${(await readFile(path, "utf8")).replace(/^<\?xml[^>]*>\s*/, "")}</div>`,
      });
  }
  if (run) {
    const bytes = (value: number | undefined) =>
      value === undefined || value <= 0 ? "not measured" : size(value);
    sections.push({
      title: "Memory and time",
      html: pairsHtml([
        ["engine", `${run.engine}, ${run.platform}`],
        ["device memory, planned", bytes(run.planned?.device)],
        ["device memory, peak", bytes(run.devicePeakBytes)],
        ["process, peak", bytes(run.peakMemoryBytes)],
        ...Object.entries(run.seconds).map(
          ([name, seconds]) => [`time, ${name}`, duration(seconds)] as const,
        ),
      ]),
    });
  }
  sections.push({
    title: "Settings",
    html: pairsHtml(
      Object.entries(settings)
        .filter(([, value]) => value !== undefined)
        .map(([name, value]) => [name, JSON.stringify(value)]),
    ),
  });
  sections.push({
    title: "Inputs",
    note: "SHA-256 of every file that the numbers depend on.",
    html: `<table class="plain"><tbody>${inputs.map(inputRow).join("\n")}</tbody></table>`,
  });
  return pageHtml(basename(resolve(folder)), `Made by train-merge ${run?.version ?? ""}.`, sections);
}

/** Writes {@link reportHtml} into the folder, as report.html. */
export async function writeReport(folder: string): Promise<string> {
  const path = join(folder, "report.html");
  await writeText(path, await reportHtml(folder));
  return path;
}
