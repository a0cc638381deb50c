/** What prompt templates make of a task's first examples: to be looked at before anything is trained. */
import { UserError } from "../errors.js";
import { tasksOf } from "../inputs/data.js";
import { fileSplits, findSplits, readExamples } from "../tasks/files.js";
import { loadPrompts } from "../tasks/prompts.js";
import type { Example } from "../tasks/examples.js";
import type { Task } from "../tasks/registry.js";

export interface PromptOptions {
  readonly task: string;
  readonly data: string;
  readonly prompts?: string | undefined;
  readonly columns?: Readonly<Record<string, string>> | undefined;
  /** Examples that are shown. */
  readonly show: number;
}

/** An example in a template's words; without them where the template leaves it out. */
export interface ShownTemplate {
  readonly name: string;
  readonly prompt?: string | undefined;
  /** What competes; of a text to be said, the one that is learned. */
  readonly answers?: readonly string[] | undefined;
  /** The right one. */
  readonly answer?: string | undefined;
}

export interface ShownPrompts {
  readonly task: string;
  /** Where the templates stand. */
  readonly prompts: string;
  /** Where the examples stand. */
  readonly data: string;
  readonly examples: readonly (readonly ShownTemplate[])[];
}

/** The first examples of a task's test set, or of another that has labels. */
async function firstExamples(
  { data, show }: PromptOptions,
  task: Task,
): Promise<{ file: string; examples: readonly Example[] }> {
  const files = await findSplits(data, task);
  for (const split of fileSplits.toReversed()) {
    const source = files[split];
    const [file] = source?.files ?? [];
    if (file === undefined) continue;
    const examples = await readExamples(file, task);
    if (examples.length > 0) return { file, examples: examples.slice(0, show) };
  }
  throw new UserError(`${data}/${task.id}: no file of it carries labels`);
}

/** Kinds of task that templates are for. */
const promptedKinds: readonly Task["kind"][] = ["single", "pair", "choice", "generate"];

/** @throws UserError where the task is of a kind without templates, or one fails */
export async function showPrompts(options: PromptOptions): Promise<ShownPrompts> {
  const { data, columns } = options;
  const knowledge = { expertOf: () => undefined, note: () => {}, columns };
  const [task] = await tasksOf(data, [options.task], knowledge);
  if (!task || !promptedKinds.includes(task.kind))
    throw new UserError(
      `${options.task} is a task of the kind ${task?.kind}, which is put into words by no template (those are for ` +
        `${promptedKinds.join(", ")}); \`evaluate --show\` shows what a model is given`,
    );
  const prompts = await loadPrompts(options.prompts);
  const templates = prompts.of(task);
  const { file, examples } = await firstExamples(options, task);
  return {
    task: task.id,
    prompts: prompts.fileOf(task),
    data: file,
    examples: examples.map((example) =>
      templates.map(({ name, put }): ShownTemplate => {
        const made = put(example);
        if (!made) return { name };
        return { name, prompt: made.prompt, answers: made.answers, answer: made.answers[made.label] };
      }),
    ),
  };
}
