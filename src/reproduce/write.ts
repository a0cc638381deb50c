import { join } from "node:path";
import { atomicFile, writeText } from "../checkpoint/files.js";
import { figureSvg, svgToPng } from "../report/figure.js";
import { withoutMarks } from "../report/rows.js";
import { csvLine, toCsv, toHtml, toLatex, toMarkdown, textOf, type TextTable } from "../report/table.js";
import { pageHtml, pairsHtml, type Section } from "../report/page.js";
import type { InputHash } from "../report/card.js";
import type { Paper } from "./papers.js";
import { surenessText, type ToldClaim } from "./claims.js";
import { packRows, rowsFile } from "./kept-rows.js";
import type { CaptionedTable, Experiment, Figure, Produced } from "./types.js";

/** What is written of an experiment: what it found, and all that a reader needs to check it. */
export interface Reproduction {
  readonly experiment: Experiment;
  readonly found: Produced;
  readonly paper: Paper | undefined;
  readonly claims: readonly ToldClaim[];
  readonly numbers: Readonly<Record<string, number>>;
  /** What is outside its expected range. */
  readonly missed: readonly string[];
  /** The command that makes it. */
  readonly command: string;
  /** A short name of all inputs together. */
  readonly inputsHash: string;
  readonly inputs: readonly InputHash[];
  /** Those that are not the customary ones. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Of this run, and of all merges and searches, an earlier run's among them. */
  readonly minutes: number;
  readonly worked: number;
  readonly synthetic: boolean;
  readonly tasks: readonly string[];
  readonly heldOut: readonly string[];
  readonly seeds: readonly number[];
}

const tableCsv = ({ head, body }: TextTable): string =>
  [head, ...body].map((line) => csvLine(line.map(textOf))).join("\n");

/** A part of a report, for people to read: its lines of Markdown, and its sections of a page. */
interface ReportPart {
  readonly lines: readonly string[];
  readonly sections: readonly Section[];
}

/** Writes a table in every form. */
async function tablePart(out: string, { name, caption, table }: CaptionedTable): Promise<ReportPart> {
  const markdown = toMarkdown(table);
  await writeText(join(out, `${name}.md`), `${caption}\n\n${markdown}\n`);
  await writeText(join(out, `${name}.tex`), `% ${caption}\n${toLatex(table)}\n`);
  await writeText(join(out, `${name}.csv`), `${tableCsv(table)}\n`);
  return {
    lines: [`## ${name}`, caption, "", markdown, ""],
    sections: [{ title: name, note: caption, html: toHtml(table) }],
  };
}

/** Writes a figure as SVG and PNG. */
async function figurePart(out: string, { name, title, spec }: Figure): Promise<ReportPart> {
  const svg = await figureSvg(spec);
  await writeText(join(out, `${name}.svg`), svg);
  await atomicFile(join(out, `${name}.png`), (write) => write(svgToPng(svg)));
  return {
    lines: [`## ${title}`, "", `![${title}](${name}.png)`, ""],
    sections: [{ title, figure: spec }],
  };
}

function claimsPart({ claims, paper }: Reproduction): ReportPart[] {
  if (claims.length === 0) return [];
  // An ablation of our own has no paper.
  const whose = paper ? "the paper says" : "one would expect";
  const title = `What ${whose}, and what was found`;
  const note =
    "Where a claim has a number, such as two points or a tenth, the number is ours. A claim about averages is " +
    "settled where it holds (or does not) in as many draws of the test examples and seeds, paired, as an interval of " +
    "95 % asks for, corrected for the number of claims, over 1,000 examples at least.";
  const head = [`what ${whose}`, "here", "how sure"];
  const table = { head, body: claims.map((one) => [one.text, one.verdict, surenessText(one)]) };
  return [
    {
      lines: [`## ${title}`, note, "", toMarkdown(table), ""],
      sections: [{ title, note, html: toHtml(table) }],
    },
  ];
}

function paperPart({ paper }: Reproduction): ReportPart[] {
  if (!paper) return [];
  const title = "The paper's own numbers";
  const { source, table, says } = paper;
  const head = [`## ${title}`, source, ""];
  const words = [...says.map((line) => `* ${line}`), ""];
  if (!table) return [{ lines: [...head, ...words], sections: [] }];
  return [
    {
      lines: [...head, toMarkdown(table), "", ...words],
      sections: [{ title, note: source, html: toHtml(table) }],
    },
  ];
}

function inputsPart({ inputs, inputsHash, missed }: Reproduction): ReportPart {
  const note = `Together ${inputsHash}.`;
  const table = {
    head: ["of", "file", "SHA-256"],
    body: inputs.map(({ role, file, sha256 }) => [role, file, sha256]),
  };
  const outside = ["## Outside what is expected", "", ...missed.map((line) => `* ${line}`), ""];
  return {
    lines: ["## Inputs", note, "", toMarkdown(table), "", ...(missed.length > 0 ? outside : [])],
    sections: [
      {
        title: "Inputs",
        note,
        html: pairsHtml(inputs.map(({ role, file, sha256 }) => [`${role}, ${file}`, sha256])),
      },
    ],
  };
}

/** What all of it was made by, and from what. */
function madeLine({ command, inputsHash, worked }: Reproduction): string {
  const took = worked > 0.05 ? `; its merges and searches took ${worked.toFixed(1)} minutes` : "";
  return `Made by \`${command}\` from inputs ${inputsHash} (below)${took}.`;
}

/** Writes tables (Markdown, CSV, LaTeX), figures (SVG, PNG), one HTML page of all of it, and results.json, last. */
export async function writeExperiment(out: string, record: Reproduction): Promise<void> {
  const { experiment, found, command, inputsHash, synthetic } = record;
  const title = `${experiment.id}: ${experiment.what}`;
  const made = madeLine(record);
  const warning = synthetic ? "SYNTHETIC data: the numbers say nothing about real tasks." : "";
  const parts: ReportPart[] = [];
  for (const table of found.tables) parts.push(await tablePart(out, table));
  for (const figure of found.figures) parts.push(await figurePart(out, figure));
  parts.push(...claimsPart(record), ...paperPart(record), inputsPart(record));
  if (found.rows.length) {
    await writeText(join(out, "rows.csv"), `${toCsv(found.rows, { command, inputs: inputsHash })}\n`);
    await atomicFile(join(out, rowsFile), (write) => write(packRows(found.rows)));
  }
  const head = [`# ${title}`, "", made, ...(warning ? ["", `**${warning}**`] : []), ""];
  await writeText(join(out, "report.md"), [...head, ...parts.flatMap(({ lines }) => lines)].join("\n"));
  await writeText(
    join(out, "report.html"),
    await pageHtml(
      title,
      `${made.replaceAll("`", "")} ${warning}`,
      parts.flatMap(({ sections }) => sections),
    ),
  );
  await writeResults(out, record);
}

/** results.json. */
async function writeResults(
  out: string,
  { experiment, found, command, inputsHash, ...record }: Reproduction,
): Promise<void> {
  const { tasks, heldOut, seeds, minutes, worked, synthetic, claims, numbers, missed, inputs, settings } =
    record;
  await writeText(join(out, "results.json"), {
    id: experiment.id,
    command,
    tasks,
    heldOut,
    seeds,
    inputsHash,
    minutes,
    worked,
    synthetic,
    claims,
    numbers,
    missed,
    // Each row by itself says what made it.
    rows: withoutMarks(found.rows).map((row) => ({ ...row, command, inputs: inputsHash })),
    inputs,
    search: {},
    settings,
  });
}
