import type { PreparedTask } from "./evaluate.js";
import { generate } from "./generate.js";
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
    // Of answers that compete, each row holds the prompt; the label's holds the right one.
    const examples = test.slice(0, count).map(({ rows, label, answers }) => ({ row: rows[label]!, answers }));
    const said = await generate(
      merge,
      examples.map(({ row }) => row),
      generation!.most,
    );
    all.push(
      ...examples.map(({ row: { ids, targets }, answers }, i) => ({
        task: id,
        prompt: generation!.text(ids),
        said: generation!.text(said[i]!),
        right: answers ?? [generation!.text(targets!)],
      })),
    );
  }
  return all;
}
