/** Parts of a run's page that are made of its log and its table: of a finished run, and of one that still goes on. */
import { escapeHtml } from "../report/table.js";
import { gates, type GateName } from "../merge/table.js";
import { coefficientMapHtml, mapData, mapScript } from "../report/coefficient-map.js";
import { linesSpec } from "../report/lines.js";
import type { InputHash } from "../report/card.js";
import { methodsSpec } from "../report/methods-chart.js";
import { pairsHtml, type Section } from "../report/page.js";
import type { ResultRow } from "../report/rows.js";
import { columnStory } from "../report/story.js";
import type { LogLine } from "./files.js";

/** At most so many, the first and the last among them. */
function thinned<T>(items: readonly T[], most: number): T[] {
  if (items.length <= most) return [...items];
  const stride = Math.ceil((items.length - 1) / (most - 1));
  return items.filter((_, i) => i === items.length - 1 || i % stride === 0);
}

/** A table of coefficients as it is shown. */
export interface ShownTable {
  readonly tasks: readonly string[];
  readonly layers: readonly { readonly id: string }[];
  readonly entries: readonly {
    readonly layer: string;
    readonly task: string;
    readonly coefficient: number;
    readonly raw: number;
  }[];
  /** What the last moment is called. Default: "as written". */
  readonly moment?: string | undefined;
}

/** A running mean of losses, which jump from batch to batch: over some twentieth of them. */
function smoothed(points: readonly { x: number; y: number }[]): { x: number; y: number }[] {
  const kept = Math.min(0.9, 1 - 1 / Math.max(1, points.length / 20));
  let mean = points[0]?.y ?? 0;
  return points.map(({ x, y }) => ({ x, y: (mean = kept * mean + (1 - kept) * y) }));
}

/** Loss and accuracy over the steps; none where the log holds neither. */
export function curves(
  log: readonly LogLine[],
  tasks: readonly string[],
  chosen: number | undefined,
): Section[] {
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
const storyHtml = ({ tasks, entries }: ShownTable, gate: GateName | undefined): string => {
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
export function coefficientSection(
  table: ShownTable,
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
  const map = { tasks, layers: ids, shots: [...history, { step: table.moment ?? "as written", values }] };
  return {
    title: "Coefficients",
    note:
      `What each expert has of each layer: ${ids.length} layers × ${k} experts. ` +
      "A row is a block, a column a kind of weight.",
    html: storyHtml(table, gate) + coefficientMapHtml(map),
    script: `const mapData = ${mapData(map)};${mapScript}`,
  };
}

/** Methods side by side. */
export const sideBySide = (rows: readonly ResultRow[], tasks: readonly string[]): Section => ({
  title: "Methods side by side",
  note:
    "A dot is a task; a diamond is the mean over the tasks, with what the number of test examples (with several " +
    "seeds, the seeds) leaves open, at 95 %.",
  half: true,
  figure: methodsSpec(rows, tasks),
});

function inputRow({ role, file, sha256 }: InputHash): string {
  return `<tr><td>${escapeHtml(role)}</td><td>${escapeHtml(file)}</td><td><code>${escapeHtml(sha256)}</code></td></tr>`;
}

/** What a run was made with, folded away. */
export function madeWith(
  settings: Readonly<Record<string, unknown>>,
  inputs: readonly InputHash[],
): Section[] {
  const told = Object.entries(settings).filter(([, value]) => value !== undefined);
  return [
    {
      folded: true,
      title: "Settings",
      html: pairsHtml(told.map(([name, value]) => [name, JSON.stringify(value)])),
    },
    {
      folded: true,
      title: "Inputs",
      note: "SHA-256 of every file that the numbers depend on.",
      html: `<table class="plain"><tbody>${inputs.map(inputRow).join("\n")}</tbody></table>`,
    },
  ];
}
