import { rowsBatch } from "../../scripts/rows-batch.js";
import { memory } from "@tensorflow/tfjs-core";
import { expect, test } from "vitest";
import { generate } from "../../src/evaluate/generate.js";
import { makeTable } from "../../src/merge/table.js";
import type { TokenRow } from "../../src/models/types.js";
import { coefficientGradient } from "../../src/train/step.js";
import { golden } from "../helpers.js";
import { openCase } from "./models.js";

interface Said {
  prompts: number[][];
  said: number[][];
  targets: number[][];
  loss: number;
}

interface Conversations {
  rows: number[][];
  spans: [number, number][][];
  loss: number;
}

/** Those that remember in ways of their own: on an emulated card the others' forwards must do (models.ts). */
const onSlow = new Set(["gpt2", "llama-llama3", "qwen2-windows", "qwen3-moe-plain", "gemma3", "opt", "t5"]);

/**
 * What language models say, and the loss of what they are to say, against transformers, which remembers
 * nothing there.
 */
export function generationTests(tolerance: number, slow: boolean): void {
  const { most, cases } = golden<{ most: number; cases: Record<string, Said> }>("generation");
  const rowsOf = ({ prompts, targets }: Said): TokenRow[] =>
    prompts.map((ids, i) => ({ ids, types: [], targets: targets[i]! }));

  const names = Object.keys(cases).filter((name) => !slow || onSlow.has(name));
  if (slow)
    console.log(`an emulated card: ${names.length} of ${Object.keys(cases).length} models are made to speak`);
  test.each(names)(
    "%s says what it says in transformers, at once or row by row, and loses as much",
    async (name) => {
      const one = cases[name]!;
      const opened = await openCase(name);
      const { model, vectors } = opened;
      const table = makeTable(vectors.layers.length, 2, (_, column) => (column === 0 ? 1 : 0));
      const { numTensors } = memory();
      for (const [blockwise, microBatch] of slow
        ? ([[false, 2048]] as const)
        : ([
            [false, 2048],
            [false, 1],
            [true, 2048],
          ] as const)) {
        expect(await generate({ model, vectors, table, blockwise, microBatch }, rowsOf(one), most)).toEqual(
          one.said,
        );
        expect(memory().numTensors).toBe(numTensors);
      }
      const batch = rowsBatch(
        "generate",
        rowsOf(one),
        one.prompts.map(() => 0),
      );
      for (const microBatch of [2048, 20]) {
        const { losses } = await coefficientGradient(
          { model, vectors, table, microBatch },
          [{ head: undefined, batch, weight: 1 }],
          "cross-entropy",
        );
        expect(Math.abs(losses[0]! - one.loss) / one.loss).toBeLessThan(tolerance);
      }
      await opened.close();
    },
  );

  // Several turns in a row, each predicted by what stands before it: scripts/golden/chat.py.
  const { losses: chats } = golden<{ losses: Record<string, Conversations> }>("chat/chat");
  test.each(Object.keys(chats).filter((name) => !slow || onSlow.has(name)))(
    "%s: what a conversation's turns lose is transformers'",
    async (name) => {
      const { rows, spans, loss } = chats[name]!;
      const opened = await openCase(name);
      const { model, vectors } = opened;
      const table = makeTable(vectors.layers.length, 2, (_, column) => (column === 0 ? 1 : 0));
      const given = rows.map((ids, i): TokenRow => ({ ids, types: [], spans: spans[i]! }));
      // A turn that one conversation says is none of the others': in passes of one row each, the same.
      for (const microBatch of [2048, 1]) {
        const { losses } = await coefficientGradient(
          { model, vectors, table, microBatch },
          [
            {
              head: undefined,
              batch: rowsBatch(
                "generate",
                given,
                rows.map(() => 0),
              ),
              weight: 1,
            },
          ],
          "cross-entropy",
        );
        expect(Math.abs(losses[0]! - loss) / loss).toBeLessThan(tolerance);
      }
      await opened.close();
    },
  );
}
