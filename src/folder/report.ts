import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { writeText } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { gates, type GateName } from "../merge/table.js";
import type { InputHash } from "../report/card.js";
import { escapeHtml, toHtml, resultTable } from "../report/table.js";
import { tableCaption } from "../report/caption.js";
import { heatmapSpec } from "../report/heatmap.js";
import { mean } from "../report/rows.js";
import { linesSpec } from "../report/lines.js";
import { duration, size } from "../report/memory.js";
import { pageHtml, pairsHtml, type Section } from "../report/page.js";
import {
  coefficientsFile,
  fileNames,
  readLog,
  resultsFile,
  runFile,
  type Coefficients,
  type LogLine,
} from "./files.js";

/** At most so many, the first and the last among them. */
function thinned<T>(items: readonly T[], most: number): T[] {
  if (items.length <= most) return [...items];
  const stride = Math.ceil((items.length - 1) / (most - 1));
  return items.filter((_, i) => i === items.length - 1 || i % stride === 0);
}

/** Loss and accuracy over the steps; none where the log holds neither. */
function curves(log: readonly LogLine[], tasks: readonly string[]): Section[] {
  const losses = log.flatMap(({ step, loss }) =>
    loss === undefined ? [] : [{ x: step, y: loss, series: "training, all tasks" }],
  );
  const scored = log.flatMap(({ step, validation }) => (validation ? [{ step, ...validation }] : []));
  const held = scored.map(({ step, loss }) => ({ x: step, y: loss, series: "held out, all tasks" }));
  if (losses.length + held.length === 0) return [];
  return [
    {
      title: "Loss along the training",
      figure: linesSpec({
        title: "",
        x: "step",
        y: "loss, summed over tasks",
        spacing: "linear",
        points: [...thinned(losses, 400), ...held],
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
        points: tasks.flatMap((series, i) =>
          scored.map(({ step, accuracy }) => ({ x: step, y: 100 * (accuracy[i] ?? NaN), series })),
        ),
      }),
    },
  ];
}

/** How many of some raw coefficients the gate hardly moves any more; a tree's are of no gate. */
function saturated(raw: readonly number[], gate: GateName | undefined): string {
  if (gate === undefined) return "–";
  const { slope, inverse } = gates[gate];
  return String(raw.filter((one) => slope(one) < 0.05 * slope(inverse(0.5))).length);
}

/** How many coefficients an expert has, how many of them do nothing, and how many the gate holds. */
function health({ tasks, entries }: Coefficients, gate: GateName | undefined): Section {
  const body = tasks.map((task) => {
    const own = entries.filter((entry) => entry.task === task);
    const values = own.map(({ coefficient }) => coefficient);
    return [
      task,
      String(own.length),
      mean(values).toFixed(3),
      Math.min(...values).toFixed(3),
      Math.max(...values).toFixed(3),
      String(values.filter((value) => Math.abs(value) < 0.01).length),
      saturated(
        own.map(({ raw }) => raw),
        gate,
      ),
    ];
  });
  return {
    title: "Dead and saturated coefficients",
    note:
      `Dead: within 0.01 of nothing. Saturated: where the gate${gate === undefined ? "" : ` (${gate})`} has ` +
      "less than a twentieth of its slope, so that training no longer moves it.",
    html: toHtml({ head: ["expert", "coefficients", "mean", "least", "most", "dead", "saturated"], body }),
  };
}

/** Numbers past which a page's heat-map shows fewer steps. */
const mostCells = 150_000;

/** The heat-map of the coefficients, with a slider over the training where the log has them. */
function heatmap({ tasks, layers, entries }: Coefficients, log: readonly LogLine[]): Section {
  const [k, ids] = [tasks.length, layers.map(({ id }) => id)];
  const byCell = new Map(entries.map(({ layer, task, coefficient }) => [`${layer}\n${task}`, coefficient]));
  const values = ids.map((layer) => tasks.map((task) => byCell.get(`${layer}\n${task}`) ?? NaN));
  const shots = log.flatMap(({ step, coefficients = [] }) =>
    coefficients.length === ids.length * k ? [{ step, coefficients }] : [],
  );
  const history = thinned(shots, Math.max(2, Math.floor(mostCells / (ids.length * k)))).map(
    ({ step, coefficients }) => ({
      step,
      values: ids.map((_, row) => coefficients.slice(row * k, (row + 1) * k)),
    }),
  );
  const slider = history.length ? ", the slider the training; on its right is what was written" : "";
  return {
    title: "Coefficients",
    note:
      `What each expert has of each layer: ${ids.length} layers × ${k} experts. The pointer ` +
      `shows a coefficient${slider}.`,
    figure: heatmapSpec({ title: "", tasks, layers: ids, values, history }),
  };
}

/** Pictures of a tree of merges, where the folder has them. */
async function pictures(folder: string): Promise<Section[]> {
  const found: Section[] = [];
  for (const [file, title] of [
    ["tree.svg", "The tree"],
    ["similarity.svg", "Similarity of the task vectors"],
  ] as const) {
    const path = join(folder, file);
    if (!existsSync(path)) continue;
    // As a picture: what a file of somebody else's has in it is drawn, and never run.
    const svg = (await readFile(path)).toString("base64");
    found.push({ title, html: `<img class="light" alt="${title}" src="data:image/svg+xml;base64,${svg}">` });
  }
  return found;
}

/** A size for a reader; engines that cannot measure leave 0. */
function measured(bytes: number | undefined): string {
  return bytes === undefined || bytes <= 0 ? "not measured" : size(bytes);
}

function memoryAndTime(run: NonNullable<Awaited<ReturnType<typeof runFile.read>>>): Section {
  return {
    title: "Memory and time",
    html: pairsHtml([
      ["engine", `${run.engine}, ${run.platform}`],
      ["device memory, planned", measured(run.planned?.device)],
      ["device memory, peak", measured(run.devicePeakBytes)],
      ["process, peak", measured(run.peakMemoryBytes)],
      ...Object.entries(run.seconds).map(([name, seconds]) => [`time, ${name}`, duration(seconds)] as const),
    ]),
  };
}

function inputRow({ role, file, sha256 }: InputHash): string {
  return `<tr><td>${escapeHtml(role)}</td><td>${escapeHtml(file)}</td><td><code>${escapeHtml(sha256)}</code></td></tr>`;
}

/**
 * The report of a finished merge as one HTML page, made from its folder alone: results, curves, the
 * heat-map with a slider over the training, dead and saturated coefficients, the tree, memory and
 * times, settings, inputs with their hashes.
 * @throws UserError where the folder holds no finished merge
 */
async function reportHtml(folder: string): Promise<string> {
  const found = await resultsFile.read(folder);
  if (!found)
    throw new UserError(
      `${folder}: there is no ${resultsFile.name} in it; a report is made of a finished run`,
    );
  const { rows, synthetic, settings, inputs } = found;
  const { tree, tasks = [], valPerTask = 0, gate = "identity" } = settings;
  const run = await runFile.read(folder);
  const table = await coefficientsFile.read(folder);
  // A tree's root has a log only where it was polished.
  const log = tree && !tree.polish ? [] : await readLog(folder);
  const sections: Section[] = [
    {
      title: "Results",
      note: tableCaption(rows, synthetic, valPerTask),
      html: toHtml(resultTable(rows)),
    },
    ...curves(log, tasks),
  ];
  if (table) sections.push(heatmap(table, log), health(table, tree ? undefined : gate));
  sections.push(...(await pictures(folder)));
  if (run) sections.push(memoryAndTime(run));
  sections.push(
    {
      title: "Settings",
      html: pairsHtml(
        Object.entries(settings)
          .filter(([, value]) => value !== undefined)
          .map(([name, value]) => [name, JSON.stringify(value)]),
      ),
    },
    {
      title: "Inputs",
      note: "SHA-256 of every file that the numbers depend on.",
      html: `<table class="plain"><tbody>${inputs.map(inputRow).join("\n")}</tbody></table>`,
    },
  );
  return pageHtml(basename(resolve(folder)), `Made by train-merge ${run?.version ?? ""}.`, sections);
}

/** Writes {@link reportHtml} into the folder, as report.html. */
export async function writeReport(folder: string): Promise<string> {
  const path = join(folder, fileNames.report);
  await writeText(path, await reportHtml(folder));
  return path;
}
