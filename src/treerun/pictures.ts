import { join } from "node:path";
import { at, lookUp } from "../at.js";
import { atomicFile, writeText } from "../checkpoint/files.js";
import { nodeFolder, nodeRunFile, type NodeResult } from "../folder/tree-files.js";
import { figureSvg, svgToPng } from "../report/figure.js";
import { heatmapSpec } from "../report/heatmap.js";
import { mean } from "../report/rows.js";
import { treeSvg, type TreePicture } from "../report/tree.js";
import type { PlannedNode, TreePlan } from "./plan.js";
import type { Similarities } from "./similarities.js";

type Results = ReadonlyMap<string, NodeResult>;

/** A task's accuracy in a node's result. */
const accuracyOf = (scores: NodeResult["test"], task: string): number =>
  lookUp(new Map(Object.entries(scores)), task).accuracy;

/** A node as the picture shows it: its tasks' accuracy before and after, and what it took. */
async function nodePicture(
  out: string,
  { id, children, tasks, predicted }: PlannedNode,
  { before, test }: NodeResult,
): Promise<TreePicture["nodes"][number]> {
  const run = await nodeRunFile.read(nodeFolder(out, id));
  return {
    id,
    children,
    tasks: tasks.map((task) => ({
      task,
      before: accuracyOf(before, task),
      after: accuracyOf(test, task),
    })),
    before: mean(Object.values(before).map(({ accuracy }) => accuracy)),
    after: mean(Object.values(test).map(({ accuracy }) => accuracy)),
    planned: predicted.device,
    ...(run && { device: run.devicePeakBytes, process: run.peakMemoryBytes, seconds: run.seconds }),
  };
}

/** An expert's accuracy on its own task, as the node above it measured it. */
function leafPicture(id: string, nodes: readonly PlannedNode[], results: Results) {
  const parent = at(
    nodes.filter(({ children }) => children.includes(id)),
    0,
  );
  return { id, accuracy: accuracyOf(lookUp(results, parent.id).before, id) };
}

/** Heat-maps of the task vectors' similarity: of the whole, and of every pair layer by layer. */
async function similarityMaps({
  tasks,
  whole,
  layers,
}: Similarities): Promise<readonly (readonly [name: string, svg: string])[]> {
  const pairs = tasks.flatMap((one, i) =>
    tasks.slice(i + 1).map((other, d) => ({ i, j: i + 1 + d, label: `${one} · ${other}` })),
  );
  const flat = heatmapSpec({
    title: "cosine similarity of the task vectors",
    tasks,
    layers: tasks,
    values: whole,
    legend: "cosine",
  });
  const byLayer = heatmapSpec({
    title: "cosine similarity of the task vectors, layer by layer",
    tasks: pairs.map(({ label }) => label),
    layers: layers.map(({ layer }) => layer),
    values: layers.map(({ cosines }) => pairs.map(({ i, j }) => at(at(cosines, i), j))),
    legend: "cosine",
  });
  return [
    ["similarity", await figureSvg(flat)],
    ["similarity-layers", await figureSvg(byLayer)],
  ];
}

/** Writes tree.svg and .png, similarity.svg and .png, similarity-layers.svg and .png. */
export async function writePictures(plan: TreePlan, results: Results): Promise<void> {
  const { out, recipe, tree } = plan;
  const nodes: TreePicture["nodes"][number][] = [];
  for (const node of plan.nodes) nodes.push(await nodePicture(out, node, lookUp(results, node.id)));
  const leaves = tree.leaves.map((id) => leafPicture(id, plan.nodes, results));
  const drawn = treeSvg({ title: `${recipe.name}: a tree of merges`, leaves, nodes });
  for (const [name, svg] of [["tree", drawn] as const, ...(await similarityMaps(plan.similarity))]) {
    await writeText(join(out, `${name}.svg`), svg);
    await atomicFile(join(out, `${name}.png`), (write) => write(svgToPng(svg)));
  }
}
