/**
 * Prints, as JSON, the logits that a merged folder gives to the first test examples of each task: for
 * scripts/golden/check_folder.py, which compares them with transformers'.
 *
 *   node dist/scripts/golden/logits.js FOLDER DATA [COUNT]
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { startEngine } from "../../src/backend/index.js";
import { openMember } from "../../src/checkpoint/family.js";
import { batchLogits } from "../../src/evaluate/evaluate.js";
import { makeTable } from "../../src/merge/table.js";
import { loadTaskVectors } from "../../src/merge/vectors.js";
import { encoderFor } from "../../src/inputs/encoder.js";
import { openHead, loadHead, prepareTask, readModel } from "../../src/inputs/prepare.js";
import { bucketed } from "../../src/tasks/batches.js";
import { loadTasks, pickTasks } from "../../src/tasks/registry.js";

const [folder, data, count = "16"] = process.argv.slice(2) as [string, string, string?];
const { family, model } = await readModel(folder);
const engine = await startEngine("auto");
const member = await openMember("merged", folder, family.canonical);
const vectors = await loadTaskVectors({ base: member, columns: [] }, [...model.parameters.keys()], {
  tables: model.tables,
});
const encoder = await encoderFor(folder, model, { maxLength: 128 });
const out: Record<string, unknown> = { engine };
for (const task of pickTasks(await loadTasks(data), (await readdir(join(folder, "heads"))).sort())) {
  const head = await openHead(folder, task.id, family.canonical);
  const prepared = await prepareTask(
    task,
    { head: await loadHead(head, family.head, "row"), config: head.checkpoint.config },
    encoder,
    { data, valPerTask: 1, seed: 0 },
  );
  const batches = prepared.test.slice(0, Number(count)).flatMap((example) => bucketed([example], 1));
  const rows = [];
  for await (const { values } of batchLogits(
    { model, vectors, table: makeTable(0, 0, () => 0) },
    batches.map((batch) => ({ head: prepared.head, batch })),
  ))
    rows.push(Array.from(values));
  out[task.id] = rows;
}
process.stdout.write(`${JSON.stringify(out)}\n`);
process.exit(0);
