import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Spec } from "vega";
import { escapeHtml, inertJson } from "./table.js";

/** A part of a page: HTML of ours, or a figure that answers to the pointer. */
export type Section = {
  readonly title: string;
  readonly note?: string | undefined;
  /** Half as wide as the page, where there is room. */
  readonly half?: boolean | undefined;
  /** Shown when it is opened. */
  readonly folded?: boolean | undefined;
} & (
  | {
      readonly html: string;
      /** Of ours, run once the page is there. */ readonly script?: string | undefined;
    }
  | { readonly figure: Spec }
);

const style = `
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fdfdfb; --line: #d6d6d0; --soft: #5c5c5c; --card: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e3; --paper: #17181a; --line: #3a3c40; --soft: #a3a3a3; --card: #1f2124; }
}
body {
  margin: 0 auto; max-width: 84rem; padding: 1.5rem;
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; color: var(--ink); background: var(--paper);
}
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.note { color: var(--soft); margin: .2rem 0 .6rem; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .6rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tbody tr:last-child td { border-bottom: 0; }
table.plain td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 0 1.5rem; }
section { grid-column: 1 / -1; min-width: 0; } section.half { grid-column: auto; }
p.lead { font-size: 1.15rem; max-width: 60rem; }
summary { cursor: pointer; } summary h2 { display: inline-block; margin: .5rem 0; }
.figure { width: 100%; } .figure svg { display: block; }
@media (max-width: 30rem) { body { padding: .8rem; } th, td { padding: .2rem .4rem; } }
.maps { --minus: #8073ac; --plus: #d97b1f; }
.maps .row { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
.maps figure { margin: 0; max-width: 100%; overflow-x: auto; } .maps figcaption { font-weight: 600; }
.maps .when input { width: min(24rem, 60vw); vertical-align: middle; }
.maps .told { min-height: 1.5em; color: var(--soft); margin: .3rem 0; }
.maps .scale {
  margin: .2rem 0 .8rem; font-size: .8rem; display: grid; grid-template-columns: repeat(3, 4rem); text-align: center;
}
.maps .scale .low { text-align: left; } .maps .scale .high { text-align: right; }
.maps .bar {
  grid-column: 1 / -1; height: .6rem; border: 1px solid var(--line);
  background: linear-gradient(90deg, var(--minus), var(--card), var(--plus));
}
table.map { border-collapse: separate; border-spacing: 1px; margin: .4rem 0; font-size: .75rem; }
table.map th { border: 0; padding: 0 .35rem; font-weight: normal; text-align: right; }
table.map thead th { vertical-align: bottom; padding: 0; }
table.map thead span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 11rem; }
table.map td {
  border: 0; padding: 0; min-width: 1.1rem; width: 1.1rem; height: 1.05rem; outline: 1px solid var(--line);
  background: color-mix(in srgb, var(--plus) var(--v), var(--card));
}
table.map td.minus { background: color-mix(in srgb, var(--minus) var(--v), var(--card)); }
table.map td.none { outline: 0; background: none; }
table.map td:focus { outline: 2px solid var(--ink); position: relative; z-index: 1; }
form.vega-bindings { margin: .4rem 0; } form.vega-bindings input { width: 20rem; vertical-align: middle; }
.vega-bind input + span { display: none; }
.light svg, img.light { background: white; max-width: 100%; } code { overflow-wrap: anywhere; }
`;

/** Vega as a script for pages: its package exports modules alone, and this stands beside them. */
const libraryFile = (): string => join(dirname(fileURLToPath(import.meta.resolve("vega"))), "vega.min.js");

/** Text that stands in a script and cannot end it. */
const inScript = (text: string): string => text.replaceAll(/<(\/script|!--)/gi, "\\u003c$1");

/** Two columns of names and values. */
export function pairsHtml(pairs: readonly (readonly [string, string])[]): string {
  const rows = pairs.map(
    ([name, value]) => `<tr><td>${escapeHtml(name)}</td><td><code>${escapeHtml(value)}</code></td></tr>`,
  );
  return `<table class="plain"><tbody>${rows.join("\n")}</tbody></table>`;
}

/** Draws the figures, and again where the reader changes between light and dark. */
const drawing = `
const dark = matchMedia("(prefers-color-scheme: dark)");
function draw() {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const [ink, line] = [colour("--ink"), colour("--line")];
  const config = {
    background: null,
    title: { color: ink, anchor: "start", fontWeight: "normal" },
    axis: {
      labelColor: ink, titleColor: ink, titleFontWeight: "normal",
      tickColor: line, domainColor: line, gridColor: line,
    },
    legend: { labelColor: ink, titleColor: ink, titleFontWeight: "normal" },
    text: { fill: ink },
    signals: [{ name: "ink", value: ink }],
    style: { "guide-label": { fill: ink }, "guide-title": { fill: ink } },
  };
  figures.forEach((spec, i) => {
    const place = document.getElementById("figure" + i);
    place.replaceChildren();
    new vega.View(vega.parse(spec, config), { renderer: "svg", container: place, hover: true }).runAsync();
  });
}
dark.addEventListener("change", draw);
draw();
`;

/** The scripts that a page with figures needs; nothing where there are none. */
async function figureScripts(figures: readonly Spec[]): Promise<string> {
  if (figures.length === 0) return "";
  const library = await readFile(libraryFile(), "utf8");
  return `<script>${inScript(library)}</script>
<script>
const figures = ${inertJson(figures)};${drawing}</script>`;
}

/** A section's heading and note around what it shows. */
function sectionHtml({ title, note, half, folded }: Section, inner: string): string {
  const shownNote = note ? `<p class="note">${escapeHtml(note)}</p>\n` : "";
  const heading = `<h2>${escapeHtml(title)}</h2>`;
  const opening = half ? '<section class="half">' : "<section>";
  const content = `${shownNote}<div class="wide">${inner}</div>`;
  if (folded) return `${opening}\n<details><summary>${heading}</summary>\n${content}\n</details>\n</section>`;
  return `${opening}\n${heading}\n${content}\n</section>`;
}

/** Where a figure is drawn, with a description for who cannot see it. */
const figurePlace = (place: number, { title, note }: Section): string =>
  `<div class="figure" id="figure${place}" role="img" ` +
  `aria-label="${escapeHtml(`${title}. ${note ?? ""}`)}"></div>`;

/**
 * One HTML file that needs no other and no network: the figures' library (Vega) is in it. It follows
 * the reader's dark mode; figures have a description for who cannot see them.
 * @param last a script of ours that runs with those of the sections
 */
export async function pageHtml(
  title: string,
  introduction: string,
  sections: readonly Section[],
  last?: string,
): Promise<string> {
  const figures: Spec[] = [];
  const scripts: string[] = last === undefined ? [] : [last];
  const body = sections.map((section) => {
    if ("html" in section) {
      if (section.script !== undefined) scripts.push(section.script);
      return sectionHtml(section, section.html);
    }
    figures.push(section.figure);
    return sectionHtml(section, figurePlace(figures.length - 1, section));
  });
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
<h1>${escapeHtml(title)}</h1>
<p class="lead">${escapeHtml(introduction)}</p>
<main>
${body.join("\n")}
</main>
${await figureScripts(figures)}
${scripts.map((script) => `<script>${inScript(script)}</script>`).join("\n")}
</body>
</html>
`;
}
