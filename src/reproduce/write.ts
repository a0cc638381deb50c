import { join } from "node:path";
import { atomicFile, writeText } from "../checkpoint/files.js";
import { figureSvg, svgToPng } from "../report/figure.js";
import { csvLine, toCsv, toHtml, toLatex, toMarkdown } from "../report/formats.js";
import { pageHtml, pairsHtml, type Section } from "../report/page.js";
import type { InputHash } from "../report/card.js";
import { textOf, type TextTable } from "../report/table.js";
import type { Paper } from "./papers.js";
import type { Experiment, Produced } from "./types.js";

/** What is written of an experiment: what it found, and all that a reader needs to check it. */
export interface Reproduction {
  readonly experiment: Experiment;
  readonly found: Produced;
  readonly paper: Paper | undefined;
  readonly claims: readonly { readonly text: string; readonly holds: boolean | undefined }[];
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

function verdict(holds: boolean | undefined): string {
  if (holds === undefined) return "cannot be told";
  return holds ? "yes" : "no";
}
const claimsTable = ({ claims, paper }: Reproduction): TextTable => ({
  head: [paper ? "what the paper says" : "what one would expect", "here"],
  body: claims.map(({ text, holds }) => [text, verdict(holds)]),
});
const tableCsv = ({ head, body }: TextTable): string =>
  [head, ...body].map((line) => csvLine(line.map(textOf))).join("\n");

/** Writes tables (Markdown, CSV, LaTeX), figures (SVG, PNG), one HTML page of all of it, and results.json, last. */
export async function writeExperiment(out: string, record: Reproduction): Promise<void> {
  const {
    experiment,
    found,
    paper,
    claims,
    command,
    inputsHash,
    inputs,
    numbers,
    missed,
    minutes,
    worked,
    synthetic,
    tasks,
    heldOut,
    seeds,
    settings,
  } = record;
  const made =
    `Made by \`${command}\` from inputs ${inputsHash} ` +
    `(below)${worked > 0.05 ? `; its merges and searches took ${worked.toFixed(1)} minutes` : ""}.`;
  const warning = synthetic ? "SYNTHETIC data: the numbers say nothing about real tasks." : "";
  const parts: string[] = [
    `# ${experiment.id}: ${experiment.what}`,
    "",
    made,
    ...(warning ? ["", `**${warning}**`] : []),
    "",
  ];
  const sections: Section[] = [];
  for (const { name, caption, table } of found.tables) {
    await writeText(join(out, `${name}.md`), `${caption}\n\n${toMarkdown(table)}\n`);
    await writeText(join(out, `${name}.tex`), `% ${caption}\n${toLatex(table)}\n`);
    await writeText(join(out, `${name}.csv`), `${tableCsv(table)}\n`);
    parts.push(`## ${name}`, caption, "", toMarkdown(table), "");
    sections.push({ title: name, note: caption, html: toHtml(table) });
  }
  for (const { name, title, spec } of found.figures) {
    const svg = await figureSvg(spec);
    await writeText(join(out, `${name}.svg`), svg);
    await atomicFile(join(out, `${name}.png`), (write) => write(svgToPng(svg)));
    parts.push(`## ${title}`, "", `![${title}](${name}.png)`, "");
    sections.push({ title, figure: spec });
  }
  if (claims.length) {
    // An ablation of our own has no paper.
    const title = `What ${paper ? "the paper says" : "one would expect"}, and what was found`;
    const note = "Where a claim has a number, such as two points or a tenth, the number is ours.";
    parts.push(`## ${title}`, note, "", toMarkdown(claimsTable(record)), "");
    sections.push({ title, note, html: toHtml(claimsTable(record)) });
  }
  if (paper) {
    parts.push(
      `## The paper's own numbers`,
      paper.source,
      "",
      ...(paper.table ? [toMarkdown(paper.table), ""] : []),
      ...paper.says.map((line) => `* ${line}`),
      "",
    );
    if (paper.table)
      sections.push({ title: "The paper's own numbers", note: paper.source, html: toHtml(paper.table) });
  }
  parts.push(
    "## Inputs",
    `Together ${inputsHash}.`,
    "",
    toMarkdown({
      head: ["of", "file", "SHA-256"],
      body: inputs.map(({ role, file, sha256 }) => [role, file, sha256]),
    }),
    "",
  );
  if (missed.length) parts.push("## Outside what is expected", "", ...missed.map((line) => `* ${line}`), "");
  sections.push({
    title: "Inputs",
    note: `Together ${inputsHash}.`,
    html: pairsHtml(inputs.map(({ role, file, sha256 }) => [`${role}, ${file}`, sha256])),
  });
  if (found.rows.length)
    await writeText(join(out, "rows.csv"), `${toCsv(found.rows, { command, inputs: inputsHash })}\n`);
  await writeText(join(out, "report.md"), parts.join("\n"));
  await writeText(
    join(out, "report.html"),
    await pageHtml(
      `${experiment.id}: ${experiment.what}`,
      `${made.replaceAll("`", "")} ${warning}`,
      sections,
    ),
  );
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
    rows: found.rows.map((row) => ({ ...row, command, inputs: inputsHash })),
    inputs,
    search: {},
    settings,
  });
}
