import { join } from "node:path";
import { expect, test } from "vitest";
import { memory } from "@tensorflow/tfjs-core";
import { openMember } from "../../src/checkpoint/family.js";
import { bert } from "../../src/models/bert.js";
import { packageFolder } from "../../src/package.js";
import { disposeHead, loadHead } from "../../src/inputs/prepare.js";
import { fisherOf } from "../../src/statistics/fisher.js";
import { gramsOf } from "../../src/statistics/gram.js";
import { loadWeights } from "../../src/statistics/weights.js";
import { encodeMixed } from "../../src/tasks/encoders.js";
import { textRows } from "../../src/tasks/head-rows.js";
import { readExamples } from "../../src/tasks/files.js";
import { loadTasks } from "../../src/tasks/registry.js";
import { loadTokenizer } from "../../src/tasks/tokenize.js";
import { golden, relativeError } from "../helpers.js";

interface Golden {
  maxLength: number;
  perTask: number;
  tasks: Record<
    string,
    {
      fisher: Record<string, { sum: number; first: number[] }>;
      gram: Record<string, { size: number; trace: number; first: number[]; last: number[] }>;
    }
  >;
}

/** Fisher information and Gram matrices of the shipped family's experts, against PyTorch's. */
export function statisticsTests(tolerance: number, slow: boolean): void {
  const data = golden<Golden>("statistics");
  const folder = join(packageFolder, "checkpoints", "mini");
  test.each(Object.keys(data.tasks).slice(0, slow ? 1 : undefined))(
    "Fisher information and Gram matrices of %s equal PyTorch's",
    async (task) => {
      const expected = data.tasks[task]!;
      const before = memory().numTensors;
      const member = await openMember(task, join(folder, "experts", task), bert.canonical);
      const model = bert.build(member.checkpoint.config);
      const dataFolder = join(packageFolder, "data", "mini");
      const kind = (await loadTasks(dataFolder)).get(task)!;
      const examples = encodeMixed(
        (await readExamples(join(dataFolder, task, "validation.jsonl"), kind)).slice(0, data.perTask),
        textRows(await loadTokenizer(join(folder, "base"), data.maxLength)),
        kind,
      );
      const [weights, head] = [await loadWeights(model, member), await loadHead(member, bert.head, "row")];
      const fisher = await fisherOf(model, weights, { head, validation: examples }, () => {});
      const grams = await gramsOf(model, weights, examples, () => {});
      weights.dispose();
      disposeHead(head);
      await member.checkpoint.close();
      expect(memory().numTensors).toBe(before);
      expect([...fisher.keys()].sort()).toEqual(Object.keys(expected.fisher).sort());
      // Squares of gradients: twice the gradients' own error.
      for (const [name, { sum, first }] of Object.entries(expected.fisher)) {
        const values = fisher.get(name)!;
        const total = values.reduce((a, b) => a + b, 0);
        expect(Math.abs(total - sum), name).toBeLessThan(2 * tolerance * Math.max(sum, 1e-9));
        const largest = Math.max(...values);
        first.forEach((x, i) =>
          expect(Math.abs(values[i]! - x), name).toBeLessThan(2 * tolerance * largest + 1e-12),
        );
      }
      expect([...grams.keys()].sort()).toEqual(Object.keys(expected.gram).sort());
      for (const [name, { size, trace, first, last }] of Object.entries(expected.gram)) {
        const values = grams.get(name)!;
        expect(values.length).toBe(size * size);
        const own = Array.from({ length: size }, (_, i) => values[i * size + i]!).reduce((a, b) => a + b, 0);
        expect(Math.abs(own - trace) / trace, name).toBeLessThan(tolerance);
        expect(
          relativeError(
            [...values.subarray(0, 6), ...values.subarray(values.length - 3), trace / size],
            [...first, ...last, trace / size],
          ),
          name,
        ).toBeLessThan(tolerance);
      }
    },
  );
}
