import { at, lookUp } from "../at.js";
import { escapeHtml } from "./table.js";
import { percent } from "./caption.js";
import { duration, placementText, size } from "./memory.js";

/** A tree of merges as it is drawn. Accuracies in [0, 1]. */
export interface TreePicture {
  readonly title: string;
  readonly leaves: readonly { readonly id: string; readonly accuracy: number }[];
  /** Children first; the last is the root. */
  readonly nodes: readonly PictureNode[];
}

export interface PictureNode {
  readonly id: string;
  readonly children: readonly string[];
  readonly tasks: readonly { readonly task: string; readonly before: number; readonly after: number }[];
  /** Means over its tasks: of its children, and of itself. */
  readonly before: number;
  readonly after: number;
  /** Bytes of device memory that were planned. */
  readonly planned: number;
  /** Where it ran: bytes of device memory and of the process, and how long it took. */
  readonly measured?: { readonly device: number; readonly process: number; readonly seconds: number };
}

const font = "DejaVu Sans, sans-serif";
const lineHeight = 14;
const heightOf = (lines: readonly string[]): number => lines.length * lineHeight + 12;

/** What a node took, or what is planned. */
function costLines({ planned, measured }: PictureNode): string[] {
  if (!measured) return [`planned: device ${size(planned)}`];
  const { device, process, seconds } = measured;
  return [
    `device ${size(device)} (planned ${size(planned)})`,
    `process ${size(process)}, ${duration(seconds)}`,
  ];
}

const nodeLines = (node: PictureNode): string[] => [
  `${node.tasks.length} tasks: ${percent(node.before)} → ${percent(node.after)} %`,
  ...node.tasks.map(({ task, before, after }) => `${task}  ${percent(before)} → ${percent(after)}`),
  ...costLines(node),
];

/** The text in each box, by what it is the box of. */
function textOfBoxes({ leaves, nodes }: TreePicture): Map<string, string[]> {
  const text = new Map<string, string[]>();
  for (const { id, accuracy } of leaves) text.set(id, [`${id}  ${percent(accuracy)} %`]);
  for (const node of nodes) text.set(node.id, nodeLines(node));
  return text;
}

/** Leaves in the order in which the tree takes them. */
function leavesBelow(byId: ReadonlyMap<string, PictureNode>, id: string): string[] {
  const node = byId.get(id);
  if (!node) return [id];
  return node.children.flatMap((child) => leavesBelow(byId, child));
}

/** Where the boxes stand. */
interface TreeLayout {
  /** The width of every box. */
  readonly width: number;
  /** The left edge of a box, and its middle from above. */
  readonly x: (id: string) => number;
  readonly y: (id: string) => number;
  /** What all of it takes. */
  readonly total: { readonly width: number; readonly height: number };
}

/** Leaves on the left, the root on the right. */
function layoutOf({ nodes }: TreePicture, text: ReadonlyMap<string, string[]>): TreeLayout {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const level = (id: string): number => 1 + Math.max(-1, ...(byId.get(id)?.children ?? []).map(level));
  const width = 12 + 6.6 * Math.max(...[...text.values()].flat().map((line) => line.length));
  const step = width + 50;
  const root = at(nodes, -1).id;
  const leaves = leavesBelow(byId, root);
  // Each leaf has room for the tallest box beside it.
  const roomOf = (id: string) => heightOf(lookUp(text, id)) + 14;
  const leafRoom = Math.max(
    roomOf(at(leaves, 0)),
    ...nodes.map(({ id, tasks }) => roomOf(id) / tasks.length),
  );
  const middles = new Map(leaves.map((id, i) => [id, 40 + leafRoom * (i + 0.5)]));
  for (const { id, children } of nodes)
    middles.set(id, children.reduce((sum, child) => sum + lookUp(middles, child), 0) / children.length);
  return {
    width,
    x: (id) => 10 + level(id) * step,
    y: (id) => lookUp(middles, id),
    total: { width: 20 + level(root) * step + width, height: 50 + leafRoom * leaves.length },
  };
}

/** A box with lines of text; the first is heavier. */
function box(id: string, lines: readonly string[], fill: string, layout: TreeLayout): string {
  const [x, y, height] = [layout.x(id), layout.y(id), heightOf(lines)];
  const text = lines.map((line, i) => {
    const lineY = (y - height / 2 + 17 + i * lineHeight).toFixed(1);
    const colour = i === 0 ? "" : ' fill="#444444"';
    return `<text x="${x + 8}" y="${lineY}" font-size="11"${colour}>${escapeHtml(line)}</text>`;
  });
  return (
    `<rect x="${x}" y="${(y - height / 2).toFixed(1)}" width="${layout.width}" height="${height}" ` +
    `rx="4" fill="${fill}" stroke="#777777"/>${text.join("")}`
  );
}

/** The line from a child's box to its node's. */
function edge(child: string, id: string, { x, y, width }: TreeLayout): string {
  const [x1, x2] = [x(child) + width, x(id)];
  const [y1, y2] = [y(child).toFixed(1), y(id).toFixed(1)];
  const middle = (x1 + x2) / 2;
  return (
    `<path d="M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ` +
    `${x2} ${y2}" fill="none" stroke="#999999" stroke-width="1.5"/>`
  );
}

/**
 * Draws leaves on the left and the root on the right: each node with its tasks' accuracy before (its children's) and
 * after, its memory and its time.
 */
export function treeSvg(picture: TreePicture): string {
  const { title, leaves, nodes } = picture;
  const text = textOfBoxes(picture);
  const layout = layoutOf(picture, text);
  const boxOf = (id: string, fill: string) => box(id, lookUp(text, id), fill, layout);
  const root = at(nodes, -1);
  const edges = nodes.flatMap(({ id, children }) => children.map((child) => edge(child, id, layout)));
  const boxes = [
    ...leaves.map(({ id }) => boxOf(id, "#fee0b6")),
    ...nodes.map((node) => boxOf(node.id, node === root ? "#d8daeb" : "#f7f7f7")),
  ];
  const [width, height] = [layout.total.width.toFixed(0), layout.total.height.toFixed(0)];
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" ` +
    `viewBox="0 0 ${width} ${height}" font-family="${font}">` +
    `<rect width="100%" height="100%" fill="white"/>` +
    `<text x="10" y="22" font-size="13">${escapeHtml(title)}</text>` +
    `${edges.join("")}${boxes.join("")}</svg>\n`
  );
}

/** The plan before it runs: each node, what it merges, and what it is predicted to take. */
export const planRows = (
  nodes: readonly {
    readonly id: string;
    readonly level: number;
    readonly children: readonly string[];
    readonly predicted: {
      readonly residency: string;
      readonly blockwise: boolean;
      readonly device: number;
      readonly host: number;
      readonly disk: number;
      readonly trainingSeconds: number;
    };
  }[],
) => ({
  head: ["node", "level", "merges", "task vectors", "device", "host", "read a step", "training, about"],
  body: nodes.map(({ id, level, children, predicted: p }) => [
    id,
    String(level),
    children.join(" | "),
    placementText(p),
    size(p.device),
    size(p.host),
    size(p.disk),
    duration(p.trainingSeconds),
  ]),
});
