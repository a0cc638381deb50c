import { escapeHtml } from "./formats.js";
import { duration, size } from "./memory.js";

/** A tree of merges as it is drawn. Accuracies in [0, 1]. */
export interface TreePicture {
  readonly title: string;
  readonly leaves: readonly { readonly id: string; readonly accuracy: number }[];
  /** Children first; the last is the root. */
  readonly nodes: readonly {
    readonly id: string;
    readonly children: readonly string[];
    readonly tasks: readonly { readonly task: string; readonly before: number; readonly after: number }[];
    /** Means over its tasks: of its children, and of itself. */
    readonly before: number;
    readonly after: number;
    /** Bytes of device memory that were planned; what was measured, where it ran. */
    readonly planned: number;
    readonly device?: number;
    readonly process?: number;
    readonly seconds?: number;
  }[];
}

const font = "DejaVu Sans, sans-serif";
const lineHeight = 14;
const percent = (value: number): string => (100 * value).toFixed(1);

/** A box with lines of text; the first is heavier. */
function box(x: number, y: number, width: number, lines: readonly string[], fill: string): string {
  const height = lines.length * lineHeight + 12;
  const text = lines.map(
    (line, i) =>
      `<text x="${x + 8}" y="${(y - height / 2 + 17 + i * lineHeight).toFixed(1)}" ` +
      `font-size="11"${i ? ' fill="#444444"' : ""}>${escapeHtml(line)}</text>`,
  );
  return (
    `<rect x="${x}" y="${(y - height / 2).toFixed(1)}" width="${width}" height="${height}" ` +
    `rx="4" fill="${fill}" stroke="#777777"/>${text.join("")}`
  );
}

/**
 * Draws leaves on the left and the root on the right: each node with its tasks' accuracy before (its children's) and
 * after, its memory and its time.
 */
export function treeSvg({ title, leaves, nodes }: TreePicture): string {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const linesOf = new Map<string, string[]>(
    [
      ...leaves.map(({ id, accuracy }) => [id, [`${id}  ${percent(accuracy)} %`]] as const),
      ...nodes.map(
        (node) =>
          [
            node.id,
            [
              `${node.tasks.length} tasks: ${percent(node.before)} → ${percent(node.after)} %`,
              ...node.tasks.map(
                ({ task, before, after }) => `${task}  ${percent(before)} → ${percent(after)}`,
              ),
              ...(node.device === undefined
                ? [`planned: device ${size(node.planned)}`]
                : [
                    `device ${size(node.device)} (planned ${size(node.planned)})`,
                    `process ${size(node.process!)}, ${duration(node.seconds!)}`,
                  ]),
            ],
          ] as const,
      ),
    ].map(([id, lines]) => [id, [...lines]]),
  );
  const level = (id: string): number => 1 + Math.max(-1, ...(byId.get(id)?.children ?? []).map(level));
  const width = 12 + 6.6 * Math.max(...[...linesOf.values()].flat().map((line) => line.length));
  const step = width + 50;
  // Leaves stand in the order in which the tree takes them, each with room for the tallest box beside it.
  const order: string[] = [];
  const walk = (id: string): void => {
    const node = byId.get(id);
    if (node) node.children.forEach(walk);
    else order.push(id);
  };
  const root = nodes.at(-1)!;
  walk(root.id);
  const heightOf = (id: string) => linesOf.get(id)!.length * lineHeight + 12;
  const leafRoom = Math.max(
    heightOf(order[0]!) + 14,
    ...nodes.map(({ id, tasks }) => (heightOf(id) + 14) / tasks.length),
  );
  const y = new Map(order.map((id, i) => [id, 40 + leafRoom * (i + 0.5)]));
  for (const { id, children } of nodes)
    y.set(id, children.reduce((sum, child) => sum + y.get(child)!, 0) / children.length);
  const x = (id: string) => 10 + level(id) * step;
  const total = { width: 20 + level(root.id) * step + width, height: 50 + leafRoom * order.length };
  const edges = nodes.flatMap(({ id, children }) =>
    children.map((child) => {
      const [x1, y1, x2, y2] = [x(child) + width, y.get(child)!, x(id), y.get(id)!];
      const middle = (x1 + x2) / 2;
      return (
        `<path d="M${x1} ${y1.toFixed(1)}C${middle} ${y1.toFixed(1)} ${middle} ${y2.toFixed(1)} ` +
        `${x2} ${y2.toFixed(1)}" fill="none" stroke="#999999" stroke-width="1.5"/>`
      );
    }),
  );
  const boxes = [
    ...leaves.map(({ id }) => box(x(id), y.get(id)!, width, linesOf.get(id)!, "#fee0b6")),
    ...nodes.map(({ id }) =>
      box(x(id), y.get(id)!, width, linesOf.get(id)!, id === root.id ? "#d8daeb" : "#f7f7f7"),
    ),
  ];
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${total.width.toFixed(0)}" ` +
    `height="${total.height.toFixed(0)}" viewBox="0 0 ${total.width.toFixed(0)} ` +
    `${total.height.toFixed(0)}" font-family="${font}"><rect width="100%" height="100%" ` +
    `fill="white"/><text x="10" y="22" ` +
    `font-size="13">${escapeHtml(title)}</text>${edges.join("")}${boxes.join("")}</svg>\n`
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
    `${p.residency}${p.blockwise ? ", by blocks" : ""}`,
    size(p.device),
    size(p.host),
    size(p.disk),
    duration(p.trainingSeconds),
  ]),
});
