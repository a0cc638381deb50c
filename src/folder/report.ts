import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { writeText } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { toHtml, resultTable } from "../report/table.js";
import { tableCaption } from "../report/caption.js";
import { headline } from "../report/story.js";
import type { ResultRow } from "../report/rows.js";
import { duration, size } from "../report/memory.js";
import { pageHtml, pairsHtml, type Section } from "../report/page.js";
import { comparisonPage } from "./comparison-page.js";
import { coefficientsFile, compareFile, fileNames, readLog, resultsFile, runFile } from "./files.js";
import { coefficientSection, curves, madeWith, sideBySide } from "./sections.js";

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

/**
 * The report of a finished merge as one HTML page, made from its folder alone: results, curves, the
 * heat-map with a slider over the training, dead and saturated coefficients, the tree, memory and
 * times, settings, inputs with their hashes.
 * @throws UserError where the folder holds no finished merge
 */
export async function reportHtml(folder: string, script?: string): Promise<string> {
  const found = await resultsFile.read(folder);
  if (!found)
    throw new UserError(
      `${folder}: there is no ${resultsFile.name} in it; a report is made of a finished run`,
    );
  const title = basename(resolve(folder));
  if (compareFile.exists(folder)) {
    const { lead, sections } = comparisonPage(found);
    return pageHtml(title, lead, sections, script);
  }
  const { rows, synthetic, settings, inputs } = found;
  const { tree, tasks = [], valPerTask = 0, gate = "identity" } = settings;
  const run = await runFile.read(folder);
  const table = await coefficientsFile.read(folder);
  // A tree's root has a log only where it was polished.
  const log = tree && !tree.polish ? [] : await readLog(folder);
  const sections: Section[] = [
    sideBySide(rows, tasks),
    ...wrongAnswers(rows, tasks),
    {
      title: "Results",
      note: tableCaption(rows, synthetic, valPerTask),
      html: toHtml(resultTable(rows)),
    },
    ...curves(log, tasks, tree ? undefined : settings.chosenStep),
  ];
  if (table) sections.push(coefficientSection(table, log, tree ? undefined : gate));
  sections.push(...(await pictures(folder)));
  if (run) sections.push(memoryAndTime(run));
  sections.push(...madeWith(settings, inputs));
  const made = `Made by train-merge ${run?.version ?? ""}.`;
  const lead = headline(rows, tasks);
  return pageHtml(title, lead ? `${lead} ${made}` : made, sections, script);
}

/** Writes {@link reportHtml} into the folder, as report.html. */
export async function writeReport(folder: string): Promise<string> {
  const path = join(folder, fileNames.report);
  await writeText(path, await reportHtml(folder));
  return path;
}
