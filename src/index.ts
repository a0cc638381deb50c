/** What train-merge offers to programs. Everything else is its own affair and may change. */
export {
  startEngine,
  surveyEngines,
  engineNames,
  type EngineName,
  type EngineStatus,
} from "./backend/index.js";
export { UserError } from "./errors.js";
export { disposeDeltas, uploadDeltas, type Deltas } from "./merge/op.js";
export { packRows, unpackRows, packings, type PackedRows, type Packing } from "./merge/packing.js";
export { mergeForward, mergeGradient, mergeTensor } from "./merge/op.js";
export { gates, gateNames, type Gate, type GateName } from "./merge/table.js";
export { groupLayers, granularities, type Granularity, type Layer } from "./merge/table.js";
export { loadTaskVectors, type TaskVectors } from "./merge/vectors.js";
export { residencies, type Residency } from "./merge/residency.js";
export { columnOf, type Column } from "./merge/source.js";
export { innerProducts, mergeTensors } from "./merge/merged.js";
export { makeTable, applyGate, type Table } from "./merge/table.js";
export { constantTables, lambdaGrid } from "./merge/table.js";
export { methods } from "./methods/index.js";
export { method, type Method, type Part, type TensorReader, type Treatment } from "./methods/types.js";
export { resolveValues } from "./methods/values.js";
export { mergeOnDisk, type DiskOptions } from "./disk/merge.js";
export { compileMerge } from "./disk/compile.js";
export { type MergePlan, type PlannedTensor } from "./disk/plan.js";
export {
  mergeByTraining,
  compareMethods,
  mergeInTree,
  addExpert,
  mergeModels,
  mergeByFile,
} from "./library.js";
export {
  type GivenComparison,
  type GivenHooks,
  type GivenMerge,
  type GivenModels,
  type GivenSettings,
} from "./library.js";
export { type Compared } from "./compare/compare.js";
export { mergekitOf } from "./run/export.js";
export { comparisonTable, type Timed } from "./report/comparison.js";
export { openCheckpoint, type Checkpoint } from "./checkpoint/folder.js";
export { openFamily, openMember, type Family, type Member } from "./checkpoint/family.js";
export { openSafetensors, type SafetensorsFile } from "./checkpoint/safetensors.js";
export { writeSafetensors, writeWeights, type TensorSource } from "./checkpoint/write.js";
export { type MergeHooks, type MergeOptions, type MergeResult } from "./config/options.js";
export { evaluateFolder, type EvaluateOptions, type Evaluation } from "./run/evaluate.js";
export { exportTask } from "./run/task-models.js";
export { loadSettings } from "./config/load.js";
export { type Settings } from "./config/schema.js";
export { type ResultRow } from "./report/rows.js";
export { resultTable, toText, type Cell, type TextTable } from "./report/table.js";
export { tableCaption } from "./report/caption.js";
export { toMarkdown, toLatex, toHtml, toCsv } from "./report/table.js";
export { version } from "./package.js";
export { fromFloat32, toFloat32 } from "./tensor/dtype.js";
export { linesSpec } from "./report/lines.js";
export { heatmapSpec } from "./report/heatmap.js";
export { figureSvg, svgToPng } from "./report/figure.js";
export { type TreeOptions } from "./treerun/plan.js";
export { explainMemory, type ExplainOptions } from "./run/explain.js";
export { predict, placements, equation6, type Placement, type Prediction } from "./plan/memory.js";
export { planTree, nestedTree, bySimilarity, byOrder, type Tree, type TreeNode } from "./tree/plan.js";
export { flatten, type FlatMerge } from "./tree/flatten.js";
export { gramMatrices } from "./merge/gram.js";
