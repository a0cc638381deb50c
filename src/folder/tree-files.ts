/** What a tree of merges leaves in its folder and in nodes/<id>/: names and schemas. */
import { metricNames } from "../tasks/metrics.js";
import { join } from "node:path";
import { z } from "zod";
import { digest, jsonFile } from "../checkpoint/files.js";
import { residencies } from "../merge/residency.js";
import { fileNames as runNames, resultsFile, runFile, stateFile } from "./files.js";
import type { ResultRow } from "../report/rows.js";

/** A node's merged model, in its folder. */
export const nodeModel = "model";

const nodesFolder = "nodes";

/** A node's folder: named by its id, or where that is long, by its start and a digest. Ids hold no separators. */
export function nodeFolder(out: string, id: string): string {
  const name = id.length <= 100 ? id : `${id.slice(0, 80)}+…${digest(id).slice(0, 12)}`;
  return join(out, nodesFolder, name);
}

const nodeId = z.string().regex(/^\w[\w.+-]*$/);

/** nodes/<id>/node.json: all that one node needs, for `train-merge node`. */
export const nodeFile = jsonFile(
  "node.json",
  z.object({
    id: nodeId,
    level: z.number(),
    tasks: z.array(nodeId).min(1),
    /** Tasks (leaves) and ids of nodes, whose folders lie beside this one's, with the identity they must have. */
    children: z.array(z.object({ id: nodeId, identity: z.string().nullable() })),
    /** SHA-256 of everything the result depends on. */
    identity: z.string(),
    method: z.string(),
    keepNodes: z.boolean(),
    base: z.string(),
    /** The experts of its tasks. */
    sources: z.array(
      z.object({
        label: z.string(),
        folder: z.string(),
        tasks: z.array(z.string()),
        merged: z.boolean(),
      }),
    ),
    hashes: z.array(z.object({ role: z.string(), file: z.string(), sha256: z.string() })),
    /** Options of the run, as `train-merge train` takes them. */
    settings: z.record(z.string(), z.unknown()),
  }),
  { marks: ["identity", "children"] },
);
export type NodeFile = z.infer<typeof nodeFile.schema>;

const scoreSchema = z.object({
  accuracy: z.number(),
  metrics: z.partialRecord(z.enum(metricNames), z.number()).default({}),
  loss: z.number(),
  n: z.number(),
});

/** nodes/<id>/result.json: written last, so a node that has one is done. */
export const nodeResultFile = jsonFile(
  "result.json",
  z.object({
    identity: z.string(),
    id: z.string(),
    method: z.string(),
    /** Absent where the method is not linear: then the merged model lies in model/. */
    flat: z
      .object({
        leaves: z.array(z.string()).readonly(),
        tensors: z.record(z.string(), z.array(z.number()).readonly()),
      })
      .optional(),
    /** Task → the merged model's score on its test split. */
    test: z.record(z.string(), scoreSchema),
    /** Task → the score of the child that it came with. */
    before: z.record(z.string(), scoreSchema),
  }),
);
export type NodeResult = z.infer<typeof nodeResultFile.schema>;

/** nodes/<id>/run.json: what may differ between equal runs. */
export const nodeRunFile = jsonFile(
  runFile.name,
  z.looseObject({
    seconds: z.number(),
    peakMemoryBytes: z.number(),
    devicePeakBytes: z.number(),
    bytesRead: z.number(),
  }),
);

/** What a node leaves: it goes where another tree's node stood in the same folder. */
export const nodeFinalFiles: readonly string[] = [
  nodeResultFile.name,
  nodeRunFile.name,
  stateFile.name,
  runNames.trainingLog,
  nodeModel,
];

/** tree.json: the tree, the same for the same inputs. */
export const treeFile = jsonFile(
  "tree.json",
  z.object({
    leaves: z.array(z.string()).readonly(),
    nodes: z.array(
      z.object({
        id: z.string(),
        level: z.number(),
        tasks: z.array(z.string()).readonly(),
        children: z.array(z.string()).readonly(),
        identity: z.string(),
      }),
    ),
  }),
  { marks: ["leaves", "nodes"] },
);

const cosineMatrix = z.array(z.array(z.number()).readonly()).readonly();

/** similarity.json: cosines of the task vectors, whole and layer by layer. */
export const similarityFile = jsonFile(
  "similarity.json",
  z.object({
    identity: z.string(),
    tasks: z.array(z.string()).readonly(),
    whole: cosineMatrix,
    layers: z.array(z.object({ layer: z.string(), cosines: cosineMatrix })).readonly(),
  }),
  { marks: ["identity", "whole"] },
);

const placement = z.looseObject({ residency: z.enum(residencies), blockwise: z.boolean() });

/** plan.json: where each node's task vectors will be, and what that is predicted to take on this machine. */
export const planFile = jsonFile(
  "plan.json",
  z.object({
    key: z.string(),
    fanIn: z.number().int().min(2),
    final: placement,
    nodes: z.array(placement.extend({ id: z.string() })),
  }),
);
export type SavedPlan = z.infer<typeof planFile.schema>;

/** slurm.json: what was submitted, and for which tree. */
export const slurmFile = jsonFile(
  "slurm.json",
  z.object({
    key: z.string(),
    submitted: z.array(
      z.object({ level: z.number(), job: z.string().regex(/^\d+$/), ids: z.array(z.string()) }),
    ),
  }),
);
export type SubmittedJobs = z.infer<typeof slurmFile.schema>["submitted"];

/** The results of a finished tree, where it is the one of this root and polish; undefined where it is another. */
export async function finishedTree(
  folder: string,
  { root, polish }: { readonly root: string; readonly polish: number },
): Promise<{ readonly rows: readonly ResultRow[] } | undefined> {
  const found = await resultsFile.readIfSound(folder);
  const tree = found?.settings.tree;
  return tree?.root === root && tree.polish === polish ? { rows: found?.rows ?? [] } : undefined;
}
