import { at } from "../at.js";
import { promptOf, targetsOf } from "../tasks/batches.js";
import type { PreparedTask } from "./evaluate.js";
import { generate, noGeneration } from "./generate.js";
import type { Merge } from "./merge.js";

/** What a model was given, what it said, and what is right. */
export interface GeneratedText {
  readonly task: string;
  readonly prompt: string;
  readonly said: string;
  readonly right: readonly string[];
}

/**
 * What a language model goes on to say to the first test examples of every task, for people to read.
 * @throws UserError where it says nothing
 */
export async function generations(
  merge: Merge,
  tasks: readonly PreparedTask[],
  count: number,
): Promise<GeneratedText[]> {
  const all: GeneratedText[] = [];
  for (const { id, generation, test } of tasks) {
    if (!generation) throw noGeneration();
    const { most, text } = generation;
    const examples = test.slice(0, count).map((example) => ({ example, row: promptOf(example) }));
    const said = await generate(
      merge,
      examples.map(({ row }) => row),
      most,
    );
    for (const [i, { example, row }] of examples.entries()) {
      const right = example.kind === "generate" ? example.answers : [text(targetsOf(row))];
      all.push({ task: id, prompt: text(row.ids), said: text(at(said, i)), right });
    }
  }
  return all;
}
