import { UserError } from "../errors.js";
import { imageRow } from "../models/patches.js";
import { rowTokens, type Model, type TokenRow } from "../models/types.js";
import type { EncodedExample } from "./batches.js";
import type { Example } from "./examples.js";
import { preprocess, type Processor } from "./pixels.js";
import type { Prompts } from "./prompts.js";
import type { Task } from "./registry.js";
import type { TextEncoder } from "./tokenize.js";

/** What a model makes of an example. */
export interface Encoder {
  /** It takes pictures, and no texts. */
  readonly sees?: boolean | undefined;
  /** Tokens that it knows; undefined where there are none to know. */
  readonly vocabulary?: number | undefined;
  /** The rows of an example that belong together, once for each prompt template (once where there are none). */
  encode(example: Example, task: Task): readonly (readonly TokenRow[])[];
  /** The files of the prompt templates that tasks are put in. */
  prompts?(tasks: readonly Task[]): string[];
  /** Tokens as text again. */
  text?(ids: readonly number[]): string;
  /** Whether an example's rows compete, and the label is the winner's number: a choice, or answers to a prompt. */
  compares(task: Task): boolean;
}

/** Texts for a model with heads: one row, or one an ending. */
export const textRows = (tokenizer: TextEncoder): Encoder => ({
  vocabulary: tokenizer.vocabulary,
  encode: ({ texts }) => [texts.map((text) => tokenizer.encode(text))],
  compares: ({ kind }) => kind === "choice",
});

/**
 * Pictures for a model that sees: unpacked and prepared whenever a pass reads them, so that a test set
 * takes no memory.
 */
export const imageRows = (processor: Processor, image: NonNullable<Model["image"]>): Encoder => ({
  sees: true,
  encode: ({ picture }) => [[imageRow(() => preprocess(picture!(), processor, image), image)]],
  compares: () => false,
});

/**
 * Prompts for a language model: a row an answer, which is scored by its log-probability, or (`mean`) by
 * that of a token of it. Too long a prompt loses its end where an encoder reads it, else its beginning:
 * the answer follows on its end.
 */
export function promptRows(
  tokenizer: TextEncoder,
  prompts: Prompts,
  { scores: kind, generation }: Pick<Model, "scores" | "generation">,
  maxLength: number,
  mean: boolean,
): Encoder {
  const checked = (targets: number[], answer: string): number[] => {
    if (targets.length === 0)
      throw new UserError(
        `an answer "${answer}" has no tokens; a template's answer_choices must not be empty`,
      );
    if (targets.length >= maxLength)
      throw new UserError(
        `the answer "${answer.slice(0, 60)}…" has ${targets.length} tokens, which leaves nothing ` +
          `of its prompt in ${maxLength}; raise --max-length`,
      );
    return targets;
  };
  /** A prompt that knows nothing of its answer, with room for what is to be said, and the answer with its end. */
  const sayingRow = (prompt: string, answer: string, room: number): TokenRow => {
    if (kind === "encoder-decoder") return { ...row(prompt, answer), mean: undefined };
    const given = tokenizer.whole(prompt, true);
    const whole = tokenizer.whole(`${prompt} ${answer}`, true);
    const goesOn = given.every((id, i) => whole[i] === id);
    const said = goesOn ? whole.slice(given.length) : tokenizer.whole(` ${answer}`, false);
    const targets = checked([...said, ...generation!.ends.slice(0, 1)], answer);
    return {
      ids: given.slice(Math.max(0, given.length - Math.max(1, maxLength - Math.max(room, targets.length)))),
      types: [],
      targets,
    };
  };
  const row = (prompt: string, answer: string): TokenRow => {
    if (kind === "encoder-decoder") {
      const [ids, targets] = [tokenizer.whole(prompt, true), checked(tokenizer.whole(answer, true), answer)];
      const special = ids.slice(tokenizer.whole(prompt, false).length);
      return {
        ids: ids.length > maxLength ? [...ids.slice(0, maxLength - special.length), ...special] : ids,
        types: [],
        targets,
        mean,
      };
    }
    // The answer as it is cut where it stands: a space belongs to the token that follows it.
    const given = tokenizer.whole(prompt, true);
    const whole = tokenizer.whole(`${prompt} ${answer}`, true);
    const shared = given.findIndex((id, i) => whole[i] !== id);
    // Something must stand before it.
    const from = Math.max(1, shared === -1 ? given.length : shared);
    const targets = checked(whole.slice(from), answer);
    return { ids: whole.slice(Math.max(0, whole.length - maxLength), from), types: [], targets, mean };
  };
  return {
    vocabulary: tokenizer.vocabulary,
    encode: (example, task) =>
      prompts.of(task).map((template) => {
        const { prompt, answers } = template(example);
        // What is said freely must be ended too. Behind an encoder the tokenizer's own end is there already.
        if (task.kind === "generate") return [sayingRow(prompt, answers[0]!, task.max_new_tokens)];
        const rows = answers.map((answer) => row(prompt, answer));
        // A decoder behind an encoder looks at the text once a row: there each is counted with it.
        return kind === "decoder" ? sharing(rows) : rows;
      }),
    compares: (task) => task.kind !== "generate",
    text: tokenizer.text,
    prompts: (tasks) => [...new Set(tasks.map((task) => prompts.fileOf(task)))],
  };
}

/** Rows of one text hold one array of it, by which they are known. */
const sharing = ([first, ...others]: readonly TokenRow[]): TokenRow[] => [
  first!,
  ...others.map((row) =>
    row.ids.length === first!.ids.length && row.ids.every((id, i) => first!.ids[i] === id)
      ? { ...row, ids: first!.ids }
      : row,
  ),
];

/** An example is as long as its longest row, answers that share their text being one. */
const encoded = (rows: readonly TokenRow[], { label, answers }: Example): EncodedExample => ({
  rows,
  label,
  ...(answers && { answers }),
  length: Math.max(...rows.map(({ ids }) => rowTokens(...rows.filter((row) => row.ids === ids)))),
});

/** Examples in every template: [templates][examples]. */
export function encodeVariants(
  examples: readonly Example[],
  encoder: Encoder,
  task: Task,
): EncodedExample[][] {
  const all = examples.map((example) => encoder.encode(example, task).map((rows) => encoded(rows, example)));
  return Array.from({ length: all[0]?.length ?? 1 }, (_, t) => all.map((variants) => variants[t]!));
}

/** A row whose patches are kept once they are made. */
function kept(row: TokenRow): TokenRow {
  let made: Float32Array | undefined;
  return row.patches ? { ...row, patches: () => (made ??= row.patches!()) } : row;
}

/**
 * Examples with a template each, in turn: what is trained on. @param keep a picture that is made once
 * is kept: for few, that are seen step after step
 */
export const encodeMixed = (
  examples: readonly Example[],
  encoder: Encoder,
  task: Task,
  keep = true,
): EncodedExample[] =>
  examples.map((example, i) => {
    const variants = encoder.encode(example, task);
    const rows = variants[i % variants.length]!;
    return encoded(keep ? rows.map(kept) : rows, example);
  });

/** Examples for a model with heads: {@link textRows}. */
export const encodeExamples = (examples: readonly Example[], tokenizer: TextEncoder): EncodedExample[] =>
  examples.map((example) =>
    encoded(
      example.texts.map((text) => tokenizer.encode(text)),
      example,
    ),
  );
