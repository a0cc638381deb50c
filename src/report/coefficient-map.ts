/**
 * Coefficients as a map of blocks × kinds of weight, an expert beside the other: HTML of ours, so that it is read by
 * mouse, keyboard and finger alike. What it shows is in attributes and text; its script only answers.
 */
import { blockOf } from "../block-names.js";
import { shortLayer } from "./figure.js";
import { distinct } from "./rows.js";
import { escapeHtml, inertJson } from "./table.js";

/** Coefficients of a merge at one moment: layers × tasks. */
export interface MapShot {
  readonly step: number | string;
  readonly values: readonly (readonly number[])[];
}

export interface CoefficientMap {
  readonly tasks: readonly string[];
  readonly layers: readonly string[];
  /** What was written is the last. */
  readonly shots: readonly MapShot[];
}

/** A layer's place: its block, and what of it. */
export function placeOf(layer: string): { readonly block: string; readonly kind: string } {
  const block = blockOf(layer);
  const numbered = /(^|\.)\d+$/.test(block);
  if (!numbered) return { block: "outside of blocks", kind: layer };
  return { block, kind: layer === block ? "all of it" : layer.slice(block.length + 1) };
}

/** "encoder.layer.3" → "block 3"; other stacks keep their names. */
export const blockName = (block: string): string =>
  block.replace(/^(encoder\.layer|layers|h|blocks)\.(\d+)$/, "block $2");

/** One expert's map of the layers that lie in blocks, or of those that do not. */
function tableHtml(map: CoefficientMap, task: number, inBlocks: boolean): string {
  const places = map.layers.map((layer, row) => ({ row, layer, ...placeOf(layer) }));
  const some = places.filter(({ block }) => (block !== "outside of blocks") === inBlocks);
  if (some.length === 0) return "";
  const name = map.tasks[task] ?? "";
  const cell = (found: { row: number; layer: string } | undefined): string => {
    if (!found) return `<td class="none"></td>`;
    const place = found.row * map.tasks.length + task;
    return `<td tabindex="-1" data-c="${place}" data-l="${escapeHtml(`${name}, ${found.layer}`)}"></td>`;
  };
  if (!inBlocks) {
    const lines = some.map(
      (one) => `<tr><th scope="row">${escapeHtml(shortLayer(one.layer))}</th>${cell(one)}</tr>`,
    );
    return `<table class="map"><tbody>${lines.join("")}</tbody></table>`;
  }
  const kinds = distinct(some.map(({ kind }) => kind));
  const blocks = distinct(some.map(({ block }) => block));
  const byPlace = new Map(some.map((one) => [`${one.block}\n${one.kind}`, one]));
  const head = kinds
    .map((kind) => `<th scope="col"><span>${escapeHtml(shortLayer(kind))}</span></th>`)
    .join("");
  const lines = blocks.map((block) => {
    const cells = kinds.map((kind) => cell(byPlace.get(`${block}\n${kind}`)));
    return `<tr><th scope="row">${escapeHtml(blockName(block))}</th>${cells.join("")}</tr>`;
  });
  return `<table class="map"><thead><tr><th></th>${head}</tr></thead><tbody>${lines.join("")}</tbody></table>`;
}

/** The map, a figure an expert, over a slider where there are several moments. */
export function coefficientMapHtml(map: CoefficientMap): string {
  const last = map.shots.length - 1;
  const range = `<input type="range" min="0" max="${last}" step="1" value="${last}">`;
  const slider = last > 0 ? `<label class="when">training ${range} <output></output></label>` : "";
  const figures = map.tasks.map((task, i) => {
    const tables = [true, false].map((inBlocks) => tableHtml(map, i, inBlocks));
    return `<figure><figcaption>${escapeHtml(task)}</figcaption>${tables.join("")}</figure>`;
  });
  const ends = `<span class="low"></span><span class="zero">0</span><span class="high"></span>`;
  return `<div class="maps">${slider}
<p class="told" role="status" aria-live="polite">Point at a cell, tap it, or walk with the arrow keys.</p>
<p class="scale"><span class="bar"></span>${ends}</p>
<div class="row">${figures.join("\n")}</div></div>`;
}

/** Numbers as the script reads them: four digits tell all that can be seen. */
export const mapData = ({ shots }: CoefficientMap): string =>
  inertJson({
    steps: shots.map(({ step }) => step),
    values: shots.map(({ values }) => values.flat().map((value) => Number(value.toPrecision(4)))),
  });

/** Fills the cells, follows the slider, and says what a cell is that somebody points at. */
export const mapScript = `
(() => {
  const { steps, values } = mapData;
  const place = document.querySelector(".maps");
  const cells = [...place.querySelectorAll("td[data-c]")];
  const told = place.querySelector(".told");
  const slider = place.querySelector("input");
  let bound = 0.1;
  for (const shot of values)
    for (const value of shot) if (Number.isFinite(value)) bound = Math.max(bound, Math.abs(value));
  place.querySelector(".low").textContent = (-bound).toFixed(2);
  place.querySelector(".high").textContent = bound.toFixed(2);
  let shot = values.length - 1;
  let current;
  const say = (cell) => {
    current = cell;
    const value = values[shot][cell.dataset.c];
    told.textContent = cell.dataset.l + ": " + value.toFixed(3);
  };
  const go = (cell) => { cell.focus(); say(cell); };
  const show = () => {
    for (const cell of cells) {
      const value = values[shot][cell.dataset.c];
      cell.style.setProperty("--v", Math.round((100 * Math.abs(value)) / bound) + "%");
      cell.classList.toggle("minus", value < 0);
    }
    if (slider) {
      const step = steps[shot];
      place.querySelector("output").textContent = typeof step === "number" ? "step " + step : step;
    }
    if (current) say(current);
  };
  const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  place.addEventListener("pointerover", ({ target }) => target.dataset?.c && say(target));
  place.addEventListener("click", ({ target }) => target.dataset?.c && go(target));
  place.addEventListener("focusin", ({ target }) => target.dataset?.c && say(target));
  place.addEventListener("keydown", (event) => {
    const [down, right] = move[event.key] ?? [];
    const cell = event.target;
    if (down === undefined || !cell.dataset?.c) return;
    event.preventDefault();
    const line = cell.parentElement;
    const next = right !== 0
      ? line.cells[cell.cellIndex + right]
      : line.parentElement.rows[line.sectionRowIndex + down]?.cells[cell.cellIndex];
    if (next?.dataset.c) go(next);
  });
  for (const table of place.querySelectorAll("table.map")) {
    const first = table.querySelector("td[data-c]");
    if (first) first.tabIndex = 0;
  }
  slider?.addEventListener("input", () => { shot = Number(slider.value); show(); });
  show();
})();`;
