import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { writeText } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { gates, type GateName } from "../merge/table.js";
import type { InputHash } from "../report/card.js";
import { escapeHtml, toHtml, resultTable } from "../report/table.js";
import { tableCaption } from "../report/caption.js";
import { coefficientMapHtml, mapData, mapScript } from "../report/coefficient-map.js";
import { methodsSpec } from "../report/methods-chart.js";
import { columnStory, headline } from "../report/story.js";
import type { ResultRow } from "../report/rows.js";
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

/** A running mean of losses, which jump from batch to batch: over some twentieth of them. */
function smoothed(points: readonly { x: number; y: number }[]): { x: number; y: number }[] {
  const kept = Math.min(0.9, 1 - 1 / Math.max(1, points.length / 20));
  let mean = points[0]?.y ?? 0;
  return points.map(({ x, y }) => ({ x, y: (mean = kept * mean + (1 - kept) * y) }));
}

/** Loss and accuracy over the steps; none where the log holds neither. */
function curves(log: readonly LogLine[], tasks: readonly string[], chosen: number | undefined): Section[] {
  const losses = log.flatMap(({ step, loss }) => (loss === undefined ? [] : [{ x: step, y: loss }]));
  const scored = log.flatMap(({ step, validation }) => (validation ? [{ step, ...validation }] : []));
  const held = scored.map(({ step, loss }) => ({ x: step, y: loss, series: "held out" }));
  if (losses.length + held.length === 0) return [];
  const each = "training, batch by batch";
  const marked = chosen === undefined ? undefined : { x: chosen, text: `step ${chosen} is kept` };
  const common = { title: "", x: "step", spacing: "linear", wide: true, marked } as const;
  return [
    {
      title: "Loss along the training",
      note: "Summed over the tasks.",
      half: true,
      figure: linesSpec({
        ...common,
        y: "loss",
        behind: [each],
        points: [
          ...thinned(losses, 400).map((point) => ({ ...point, series: each })),
          ...thinned(smoothed(losses), 400).map((point) => ({ ...point, series: "training, smoothed" })),
          ...held,
        ],
      }),
    },
    {
      title: "Accuracy along the training",
      note: "On the validation examples that the step is chosen by.",
      half: true,
      figure: linesSpec({
        ...common,
        y: "accuracy, %",
        zero: false,
        points: tasks.flatMap((series, i) =>
          scored.map(({ step, accuracy }) => ({ x: step, y: 100 * (accuracy[i] ?? NaN), series })),
        ),
      }),
    },
  ];
}

/** How many of some raw coefficients the gate hardly moves any more: less than a twentieth of its slope is left. */
function saturated(raw: readonly number[], gate: GateName): number {
  const { slope, inverse } = gates[gate];
  return raw.filter((one) => slope(one) < 0.05 * slope(inverse(0.5))).length;
}

/** What each expert counts for, in words. @param gate undefined where the table is of no gate: a tree's */
const storyHtml = ({ tasks, entries }: Coefficients, gate: GateName | undefined): string => {
  const lines = tasks.map((task) => {
    const own = entries.filter((entry) => entry.task === task);
    const raw = own.map((entry) => entry.raw);
    return columnStory({ task, entries: own, saturated: gate && saturated(raw, gate) });
  });
  return `<ul>${lines.map((line) => `<li>${escapeHtml(line)}</li>`).join("")}</ul>`;
};

/** Numbers past which a page's heat-map shows fewer steps. */
const mostCells = 150_000;

/** The map of the coefficients, with a slider over the training where the log has them. */
function coefficientSection(
  table: Coefficients,
  log: readonly LogLine[],
  gate: GateName | undefined,
): Section {
  const { tasks, layers, entries } = table;
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
  const map = { tasks, layers: ids, shots: [...history, { step: "as written", values }] };
  return {
    title: "Coefficients",
    note:
      `What each expert has of each layer: ${ids.length} layers × ${k} experts. ` +
      "A row is a block, a column a kind of weight.",
    html: storyHtml(table, gate) + coefficientMapHtml(map),
    script: `const mapData = ${mapData(map)};${mapScript}`,
  };
}

/** How often the merge is wrong, and where its expert is right. */
function wrongAnswers(rows: readonly ResultRow[], tasks: readonly string[]): Section[] {
  const last = rows.at(-1)?.method;
  const of = (method: string | undefined, task: string) =>
    rows.find((row) => row.method === method && row.task === task && row.split === "test");
  const body = tasks.flatMap((task) => {
    const [merge, expert] = [of(last, task), of("individual", task)];
    if (!merge || merge.metric !== "accuracy") return [];
    const [own, theirs] = [merge.right ?? "", expert?.right ?? ""];
    const count = (test: (mine: string, its: string) => boolean) =>
      own !== "" && own.length === theirs.length && !own.includes("|")
        ? String(own.split("").filter((mine, i) => test(mine, theirs[i] ?? "")).length)
        : "–";
    return [
      [
        task,
        String(Math.round((1 - merge.value) * merge.n)),
        String(merge.n),
        count((mine, its) => mine === "0" && its === "1"),
        count((mine, its) => mine === "1" && its === "0"),
      ],
    ];
  });
  if (body.length === 0) return [];
  return [
    {
      title: `Wrong answers of ${last}`,
      note: "Lost: the task's expert is right there. Gained: right where the expert is wrong.",
      half: true,
      html: toHtml({ head: ["task", "wrong", "of", "lost", "gained"], body }),
    },
  ];
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
    folded: true,
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
      title: "Methods side by side",
      note:
        "A dot is a task; a diamond is the mean over the tasks, with what the number of test examples (with several " +
        "seeds, the seeds) leaves open, at 95 %.",
      half: true,
      figure: methodsSpec(rows, tasks),
    },
    {
      title: "Results",
      half: true,
      note: tableCaption(rows, synthetic, valPerTask),
      html: toHtml(resultTable(rows)),
    },
    ...curves(log, tasks, tree ? undefined : settings.chosenStep),
  ];
  if (table) sections.push(coefficientSection(table, log, tree ? undefined : gate));
  sections.push(...wrongAnswers(rows, tasks));
  sections.push(...(await pictures(folder)));
  if (run) sections.push(memoryAndTime(run));
  sections.push(
    {
      folded: true,
      title: "Settings",
      html: pairsHtml(
        Object.entries(settings)
          .filter(([, value]) => value !== undefined)
          .map(([name, value]) => [name, JSON.stringify(value)]),
      ),
    },
    {
      folded: true,
      title: "Inputs",
      note: "SHA-256 of every file that the numbers depend on.",
      html: `<table class="plain"><tbody>${inputs.map(inputRow).join("\n")}</tbody></table>`,
    },
  );
  const made = `Made by train-merge ${run?.version ?? ""}.`;
  const lead = headline(rows, tasks);
  return pageHtml(basename(resolve(folder)), lead ? `${lead} ${made}` : made, sections);
}

/** Writes {@link reportHtml} into the folder, as report.html. */
export async function writeReport(folder: string): Promise<string> {
  const path = join(folder, fileNames.report);
  await writeText(path, await reportHtml(folder));
  return path;
}
