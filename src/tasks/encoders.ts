import { at } from "../at.js";
import { UserError } from "../errors.js";
import { imageRow } from "../models/patches.js";
import type { ImageShape, Model, TokenRow } from "../models/types.js";
import { longestOf, ranked, type AnswerKind, type EncodedExample } from "./batches.js";
import type { ChatForm } from "./chat.js";
import { chatExample } from "./chat-rows.js";
import { pictureOf, type Example } from "./examples.js";
import { imageSize, preprocess, type Processor } from "./pixels.js";
import type { Template } from "./prompt.js";
import type { Prompts } from "./prompts.js";
import type { Task } from "./registry.js";
import type { TextTokenizer } from "./tokenize.js";

/** Of a language model: after how many tokens it is stopped, and what its tokens say. */
export interface TextOutput {
  readonly most: number;
  text(ids: readonly number[]): string;
}

/** How a model answers a task. A language model can be asked for a text where answers compete, too. */
export type Answering =
  | { readonly kind: Exclude<AnswerKind, "choose" | "generate">; readonly generation?: undefined }
  | { readonly kind: "choose"; readonly generation?: TextOutput | undefined }
  | { readonly kind: "generate"; readonly generation: TextOutput };

/** What a model makes of an example. */
export interface Encoder {
  readonly input: "image" | "text";
  /** Tokens that it knows; undefined where there are none to know. */
  readonly vocabulary?: number | undefined;
  /**
   * An example, once for each prompt template (once where there are none); undefined where it is none of a template's
   * examples. @param shots solved examples that stand before it
   */
  encode(example: Example, task: Task, shots?: readonly Example[]): readonly (EncodedExample | undefined)[];
  /** The files of the prompt templates that tasks are put in. */
  prompts?(tasks: readonly Task[]): string[];
  /** What conversations are put into words by, where there is one such template. */
  readonly chatTemplate?: string | undefined;
  /** Tokens as text again. */
  text?(ids: readonly number[]): string;
  /** Whether the model makes texts. */
  readonly speaks: boolean;
  answering(task: Task): Answering;
}

/**
 * Pictures for a model that sees: unpacked and prepared whenever a pass reads them, so that a test set
 * takes no memory.
 */
export function imageRows(processor: Processor, model: ImageShape): Encoder {
  const image = { ...model, size: imageSize(processor, model) };
  return {
    input: "image",
    encode(example) {
      const row = imageRow(() => preprocess(pictureOf(example), processor, image), image);
      return [ranked("classify", [row], example)];
    },
    answering: () => ({ kind: "classify" }),
    speaks: false,
  };
}

/** What conversations are read with. */
export interface ChatReader {
  /** @throws UserError where there is no template, or several */
  form(): ChatForm;
  /** The template's text; undefined where there is not one. */
  readonly template: string | undefined;
}

/** What prompts are made into rows with. */
export interface PromptOptions {
  readonly tokenizer: TextTokenizer;
  readonly prompts: Prompts;
  readonly model: Pick<Model, "scores" | "generation">;
  readonly maxLength: number;
  /** An answer is scored by the log-probability of a token of it, not by that of the whole. */
  readonly mean: boolean;
  readonly chat: ChatReader;
}

/** An answer's tokens. @throws UserError where there are none of them, or so many that no prompt is left */
function checkTargets(targets: number[], answer: string, maxLength: number): number[] {
  if (targets.length === 0)
    throw new UserError(`an answer "${answer}" has no tokens; a template's answer_choices must not be empty`);
  if (targets.length >= maxLength)
    throw new UserError(
      `the answer "${answer.slice(0, 60)}…" has ${targets.length} tokens, which leaves nothing ` +
        `of its prompt in ${maxLength}; raise --max-length`,
    );
  return targets;
}

/** How many tokens of a text a longer one begins with. */
function sharedStart(given: readonly number[], whole: readonly number[]): number {
  const other = given.findIndex((id, i) => whole[i] !== id);
  return other === -1 ? given.length : other;
}

/** A prompt that an encoder reads and loses its end where it is too long, and an answer. */
function encoderRow({ tokenizer, maxLength, mean }: PromptOptions, prompt: string, answer: string): TokenRow {
  const targets = checkTargets(tokenizer.whole(answer, true), answer, maxLength);
  const given = tokenizer.whole(prompt, true);
  if (given.length <= maxLength) return { ids: given, types: [], targets, mean };
  const special = given.slice(tokenizer.whole(prompt, false).length);
  return { ids: [...given.slice(0, maxLength - special.length), ...special], types: [], targets, mean };
}

/** A prompt with an answer behind it: too long, it loses its beginning. */
function decoderRow({ tokenizer, maxLength, mean }: PromptOptions, prompt: string, answer: string): TokenRow {
  // The answer as it is cut where it stands: a space belongs to the token that follows it.
  const given = tokenizer.whole(prompt, true);
  const whole = tokenizer.whole(`${prompt} ${answer}`, true);
  // Something must stand before it.
  const from = Math.max(1, sharedStart(given, whole));
  const targets = checkTargets(whole.slice(from), answer, maxLength);
  return { ids: whole.slice(Math.max(0, whole.length - maxLength), from), types: [], targets, mean };
}

/** A prompt that knows nothing of its answer, with room for what is to be said, and the answer with its end. */
function generateRow(options: PromptOptions, prompt: string, answer: string, room: number): TokenRow {
  const { tokenizer, model, maxLength } = options;
  // What is said freely must be ended too. Behind an encoder the tokenizer's own end is there already.
  if (model.scores === "encoder-decoder") return { ...encoderRow(options, prompt, answer), mean: undefined };
  if (!model.generation) throw new Error("a model that scores texts and makes none is asked for one");
  const given = tokenizer.whole(prompt, true);
  const whole = tokenizer.whole(`${prompt} ${answer}`, true);
  const goesOn = sharedStart(given, whole) === given.length;
  const said = goesOn ? whole.slice(given.length) : tokenizer.whole(` ${answer}`, false);
  const targets = checkTargets([...said, ...model.generation.ends.slice(0, 1)], answer, maxLength);
  const most = Math.max(1, maxLength - Math.max(room, targets.length));
  return { ids: given.slice(Math.max(0, given.length - most)), types: [], targets };
}

/** The rows of a prompt's answers, which compete. */
function answerRows(options: PromptOptions, prompt: string, answers: readonly string[]): TokenRow[] {
  // A decoder behind an encoder looks at the text once a row: there each is counted with it.
  if (options.model.scores === "encoder-decoder")
    return answers.map((answer) => encoderRow(options, prompt, answer));
  return sharing(answers.map((answer) => decoderRow(options, prompt, answer)));
}

/** Examples with their right answers, as a template puts them, an empty line behind each. */
const solved = (template: Template, shots: readonly Example[]): string =>
  shots
    .flatMap((shot) => template.put(shot) ?? [])
    .map(({ prompt, answers, label }) => `${prompt} ${at(answers, label)}\n\n`)
    .join("");

/** A text up to what ends it. */
const upTo = (text: string, stops: readonly string[]): string =>
  stops.reduce((rest, stop) => rest.split(stop)[0] ?? "", text);

/** Rows of one text hold one array of it, by which they are known. */
function sharing(rows: readonly TokenRow[]): TokenRow[] {
  const { ids } = at(rows, 0);
  const isShared = (row: TokenRow) =>
    row.ids.length === ids.length && row.ids.every((id, i) => ids[i] === id);
  return rows.map((row) => (isShared(row) ? { ...row, ids } : row));
}

/**
 * Prompts for a language model: a row an answer, which is scored by its log-probability, or (`mean`) by
 * that of a token of it. Too long a prompt loses its end where an encoder reads it, else its beginning:
 * the answer follows on its end.
 */
export function promptRows(options: PromptOptions): Encoder {
  const { tokenizer, prompts } = options;
  return {
    input: "text",
    vocabulary: tokenizer.vocabulary,
    encode(example, task, shots = []) {
      if (example.kind === "chat") {
        const room = task.max_new_tokens;
        return [chatExample(example, { chat: options.chat.form(), maxLength: options.maxLength, room })];
      }
      return prompts.of(task).map((template) => {
        const put = template.put(example);
        if (!put) return undefined;
        const { answers, label } = put;
        const prompt = solved(template, shots) + put.prompt;
        if (example.kind !== "generate")
          return ranked("choose", answerRows(options, prompt, answers), { label });
        const rows = [generateRow(options, prompt, at(answers, 0), task.max_new_tokens)];
        return {
          kind: "generate",
          rows,
          label: example.label,
          answers: example.answers,
          length: longestOf(rows),
        };
      });
    },
    answering({ kind, max_new_tokens: most, stop = [] }) {
      const generation = { most, text: (ids: readonly number[]) => upTo(tokenizer.text(ids), stop) };
      if (kind === "generate" || kind === "chat") return { kind: "generate", generation };
      return { kind: "choose", generation };
    },
    text: tokenizer.text,
    chatTemplate: options.chat.template,
    speaks: true,
    prompts: (tasks) => [
      ...new Set(tasks.filter(({ kind }) => kind !== "chat").map((task) => prompts.fileOf(task))),
    ],
  };
}

/** Examples in every template that takes any: [templates][examples that it takes], those that take most first. */
export function encodeVariants(
  examples: readonly Example[],
  encoder: Encoder,
  task: Task,
  shots: readonly Example[] = [],
): EncodedExample[][] {
  const all = examples.map((example) => encoder.encode(example, task, shots));
  const templates = Array.from({ length: all[0]?.length ?? 1 }, (_, t) =>
    all.map((variants) => variants[t]).filter((one) => one !== undefined),
  );
  const taken = templates.filter((encoded) => encoded.length > 0);
  // The first stands for the task where one is enough.
  if (taken.length > 0) return taken.toSorted((a, b) => b.length - a.length);
  return [[]];
}

/** A row whose patches are kept once they are made. */
function kept(row: TokenRow): TokenRow {
  const { patches } = row;
  if (!patches) return row;
  let made: Float32Array | undefined;
  return { ...row, patches: () => (made ??= patches()) };
}

/** How examples are encoded. */
export interface MixedOptions {
  /** A picture that is made once is kept: for few, that are seen step after step. Default: yes. */
  readonly keep?: boolean;
  /** Solved examples that stand before each. */
  readonly shots?: readonly Example[];
}

/** Examples with a template each, in turn: what is trained on. */
export const encodeMixed = (
  examples: readonly Example[],
  encoder: Encoder,
  task: Task,
  { keep = true, shots = [] }: MixedOptions = {},
): EncodedExample[] =>
  examples.flatMap((example, i) => {
    const variants = encoder.encode(example, task, shots).filter((one) => one !== undefined);
    if (variants.length === 0) return [];
    const chosen = at(variants, i % variants.length);
    if (!keep) return chosen;
    return { ...chosen, rows: chosen.rows.map(kept) };
  });
