/** The page of a run while it goes on: what its folder holds so far. */
import { existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { digest } from "../checkpoint/files.js";
import { applyGate, gateNames } from "../merge/table.js";
import { methodScores } from "../report/methods-chart.js";
import { pageHtml, pairsHtml, type Section } from "../report/page.js";
import { distinct, type ResultRow } from "../report/rows.js";
import { resultTable, toHtml } from "../report/table.js";
import { timeText } from "../report/caption.js";
import {
  compareFile,
  fileNames,
  methodFile,
  readLog,
  resultsFile,
  stateFile,
  type LogLine,
} from "./files.js";
import { reportHtml } from "./report.js";
import { coefficientSection, curves, sideBySide, type ShownTable } from "./sections.js";
import { nodeResultFile, treeFile } from "./tree-files.js";

/** What a page says, and shows. */
interface Live {
  readonly lead: string;
  readonly sections: readonly Section[];
}

/** Where a training stood at a moment, for the time that is left. */
export interface Seen {
  readonly step: number;
  readonly at: number;
}

/** Folders in a folder that hold something, by a file of theirs; none where there is no such folder. */
async function foldersWith(folder: string, file: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => []);
  return names.map((name) => join(folder, name)).filter((path) => existsSync(join(path, file)));
}

/** When a file was last written; 0 where there is none. */
const writtenAt = async (path: string): Promise<number> =>
  (await stat(path).catch(() => undefined))?.mtimeMs ?? 0;

/** The newest of some folders by a file of theirs. */
async function newest(folders: readonly string[], file: string): Promise<string | undefined> {
  let [found, latest]: [string | undefined, number] = [undefined, 0];
  for (const folder of folders) {
    const at = await writtenAt(join(folder, file));
    if (at > latest) [found, latest] = [folder, at];
  }
  return found;
}

const numberIn = (identity: Readonly<Record<string, unknown>>, key: string): number | undefined => {
  const value = identity[key];
  return typeof value === "number" ? value : undefined;
};

/** The coefficients of the last step that was looked at. */
function lastTable(
  { labels, raw }: NonNullable<Awaited<ReturnType<typeof stateFile.read>>>,
  gate: (typeof gateNames)[number],
): ShownTable | undefined {
  if (!labels || labels.layers.length !== raw.rows || labels.experts.length !== raw.columns) return undefined;
  const { values } = applyGate({ ...raw, values: Float64Array.from(raw.values) }, gate);
  const { layers, experts: tasks } = labels;
  const entries = layers.flatMap((layer, row) =>
    tasks.map((task, column) => {
      const place = row * raw.columns + column;
      return { layer, task, coefficient: values[place] ?? NaN, raw: raw.values[place] ?? NaN };
    }),
  );
  return { tasks, layers: layers.map((id) => ({ id })), entries, moment: "now" };
}

/** How far a training is, in a sentence. */
function trainingLead(log: readonly LogLine[], steps: number | undefined, seen: readonly Seen[]): string {
  const last = log.at(-1);
  if (!last) return "The training begins.";
  const of = steps === undefined ? "" : ` of ${steps}`;
  const loss = log.findLast((line) => line.loss !== undefined)?.loss;
  const told = loss === undefined ? "" : `, loss ${loss.toFixed(4)}`;
  const [first, now] = [seen[0], seen.at(-1)];
  let left = "";
  if (steps !== undefined && first && now && now.step > first.step && last.step < steps)
    left = `, about ${timeText(((now.at - first.at) / 1000 / (now.step - first.step)) * (steps - last.step))} left`;
  return `Step ${last.step}${of} of the training${told}${left}.`;
}

/** A training that goes on, or stopped. */
async function liveTraining(folder: string, seen: readonly Seen[]): Promise<Live | undefined> {
  const state = await stateFile.readIfSound(folder);
  if (!state) return undefined;
  const { identity } = state;
  const log = await readLog(folder).catch(() => []);
  const gate = gateNames.find((name) => name === identity["gate"]) ?? "identity";
  const tasks = Array.isArray(identity["tasks"]) ? identity["tasks"].map(String) : [];
  const table = lastTable(state, gate);
  const settings = Object.entries(identity).filter(([, value]) => typeof value !== "object");
  const sections: Section[] = curves(log, tasks, state.best?.step);
  if (table) sections.push(coefficientSection(table, log, gate));
  sections.push({
    title: "Settings and inputs",
    folded: true,
    html: pairsHtml(settings.map(([name, value]) => [name, JSON.stringify(value)])),
  });
  return { lead: trainingLead(log, state.labels?.steps ?? numberIn(identity, "steps"), seen), sections };
}

/** Rows side by side, as far as they are there. */
function rowSections(rows: readonly ResultRow[]): Section[] {
  if (rows.length === 0) return [];
  const tasks = distinct(rows.map(({ task }) => task));
  return [sideBySide(rows, tasks), { title: "Results so far", html: toHtml(resultTable(rows)) }];
}

/** A comparison: what is done, and the training in hand. */
async function liveComparison(folder: string, seen: readonly Seen[]): Promise<Live | undefined> {
  const asked = await compareFile.readIfSound(folder);
  if (!asked) return undefined;
  const rows: ResultRow[] = [];
  let count = 0;
  for (const name of asked.methods) {
    const made = await methodFile(name).readIfSound(join(folder, fileNames.methods));
    if (made) count++;
    rows.push(...(made?.rows ?? []));
  }
  const tasks = distinct(rows.map(({ task }) => task));
  const [best] = methodScores(rows, tasks)
    .filter(({ method }) => method !== "individual")
    .toSorted((a, b) => b.mean - a.mean);
  const soFar = best ? ` The best is ${best.method} with ${best.mean.toFixed(1)} % on average.` : "";
  const lead = `${count} of ${asked.methods.length} methods are done.${soFar}`;
  const models = await foldersWith(join(folder, fileNames.models), stateFile.name);
  const inHand = await newest(
    models.filter((model) => !resultsFile.exists(model)),
    stateFile.name,
  );
  const training = inHand === undefined ? undefined : await liveTraining(inHand, seen);
  const more = training && inHand !== undefined ? ` Now: ${basename(inHand)}. ${training.lead}` : "";
  return {
    lead: lead + more,
    sections: [...rowSections(rows), ...(training?.sections ?? [])],
  };
}

/** A tree: which nodes are done, and the one in hand. */
async function liveTree(folder: string, seen: readonly Seen[]): Promise<Live | undefined> {
  if (!treeFile.exists(folder)) return undefined;
  const nodes = join(folder, "nodes");
  const all = await readdir(nodes).catch(() => []);
  const done = (await foldersWith(nodes, nodeResultFile.name)).map((path) => basename(path));
  const begun = await foldersWith(nodes, stateFile.name);
  // A tree that is polished has a training of its own.
  const inHand = await newest(
    [...begun.filter((path) => !done.includes(basename(path))), folder],
    stateFile.name,
  );
  const training = inHand === undefined ? undefined : await liveTraining(inHand, seen);
  const now = inHand === undefined ? "" : basename(inHand);
  const stands = (name: string): string => {
    if (done.includes(name)) return "done";
    return name === now ? "now" : "–";
  };
  const body = all.map((name) => [name, stands(name)]);
  const lead = `${done.length} of ${all.length} nodes are done.`;
  return {
    lead: training && inHand !== undefined ? `${lead} Now: ${basename(inHand)}. ${training.lead}` : lead,
    sections: [{ title: "Nodes", html: toHtml({ head: ["node", ""], body }) }, ...(training?.sections ?? [])],
  };
}

/** The step of the training in hand, for the time that is left; undefined where there is none. */
export async function stepOf(folder: string): Promise<number | undefined> {
  const inside = [folder, ...(await trainingsIn(folder))];
  const current = await newest(inside, stateFile.name);
  if (current === undefined) return undefined;
  return (await readLog(current).catch(() => [])).at(-1)?.step;
}

/** Folders of trainings that a comparison or a tree runs. */
const trainingsIn = async (folder: string): Promise<string[]> => [
  ...(await foldersWith(join(folder, fileNames.models), stateFile.name)),
  ...(await foldersWith(join(folder, "nodes"), stateFile.name)),
];

/** What a run's page depends on: it is the same as long as nothing was written. */
export async function versionOf(folder: string): Promise<string> {
  const trainings = await trainingsIn(folder);
  const methods = await readdir(join(folder, fileNames.methods)).catch(() => []);
  const files = [
    ...[folder, ...trainings].flatMap((one) =>
      [resultsFile.name, stateFile.name, fileNames.trainingLog, compareFile.name, nodeResultFile.name].map(
        (name) => join(one, name),
      ),
    ),
    ...methods.map((name) => join(folder, fileNames.methods, name)),
  ];
  const times: number[] = [];
  for (const file of files) times.push(await writtenAt(file));
  return digest({ files, times });
}

/** Asks whether anything was written, and loads the page again if so. */
const refreshing = (version: string): string => `
const shown = ${JSON.stringify(version)};
setInterval(async () => {
  try {
    const now = await (await fetch("/version")).text();
    if (now !== shown) location.reload();
  } catch {
    document.title = document.title.replace(/( \\(ended\\))?$/, " (ended)");
  }
}, 2000);`;

/**
 * The page of a run as its folder stands: of a finished one its report.
 * @param seen where the training in hand stood when it was looked at before
 */
export async function livePage(folder: string, seen: readonly Seen[]): Promise<string> {
  const version = await versionOf(folder);
  const script = refreshing(version);
  const goesOn = async () =>
    (await liveComparison(folder, seen)) ??
    (await liveTree(folder, seen)) ??
    (await liveTraining(folder, seen));
  const live = resultsFile.exists(folder) ? undefined : await goesOn();
  const title = basename(resolve(folder));
  if (live) {
    const lead = `${live.lead} This page follows the run.`;
    return pageHtml(title, lead, live.sections, script);
  }
  if (resultsFile.exists(folder)) return reportHtml(folder, script);
  return pageHtml(title, "Nothing was written here yet. This page follows the run.", [], script);
}
