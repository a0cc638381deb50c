/** What a model makes of examples, out of its folder: tokens, prompts, conversations, pictures. */
import { existsSync, statSync } from "node:fs";
import { namedTokens, templateIn } from "../checkpoint/chat-template.js";
import { readTextFile } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { chatTemplates } from "../tasks/chat-templates.js";
import type { Model } from "../models/types.js";
import { nearest } from "../nearest.js";
import { chatForm, type ChatForm } from "../tasks/chat.js";
import { imageRows, promptRows, type ChatReader, type Encoder } from "../tasks/encoders.js";
import { textRows } from "../tasks/head-rows.js";
import { loadProcessor } from "../tasks/pixels.js";
import { loadPrompts } from "../tasks/prompts.js";
import { loadTokenizer, type TextTokenizer } from "../tasks/tokenize.js";
import { embeddingForm } from "./embedding-form.js";

/** A chat template, and where it is from. */
interface FoundTemplate {
  readonly template: string;
  readonly where: string;
}

/** What `--chat-template` names: one of ours, or a file. @throws UserError */
async function namedTemplate(asked: string): Promise<FoundTemplate> {
  const ours = chatTemplates.get(asked);
  if (ours !== undefined) return { template: ours, where: `--chat-template ${asked}` };
  if (existsSync(asked) && statSync(asked).isFile()) {
    const template = (await readTextFile(asked)).trim();
    return { template, where: asked };
  }
  const names = [...chatTemplates.keys()];
  throw new UserError(
    `--chat-template ${asked}: there is no such file, and none of that name${nearest(asked, names)}; give a file of ` +
      `Jinja, or one of ${names.join(", ")}`,
  );
}

/** The templates of some folders, each text once. */
async function templatesIn(folders: readonly string[]): Promise<FoundTemplate[]> {
  const found: FoundTemplate[] = [];
  for (const where of folders) {
    const template = await templateIn(where);
    if (template && !found.some((one) => one.template === template)) found.push({ template, where });
  }
  return found;
}

/** Where a template is looked for. */
export interface ChatPlaces {
  /** The folder with the tokenizer. */
  readonly home: string;
  /** Models that were trained on conversations, which may have a template that their base has not. */
  readonly experts: readonly string[];
  /** `--chat-template`. */
  readonly asked?: string | undefined;
}

/**
 * Finds the template: the one that is named; that of the experts, who were trained with it; that of their base.
 * Whether one is missing is said when a conversation is read, not before.
 */
export async function chatReader(
  { home, experts, asked }: ChatPlaces,
  tokenizer: TextTokenizer,
): Promise<ChatReader> {
  const ofExperts = asked === undefined ? await templatesIn(experts) : [await namedTemplate(asked)];
  const found = ofExperts.length > 0 ? ofExperts : await templatesIn([home]);
  const [first, second] = found;
  const tokens = await namedTokens(home);
  let form: ChatForm | undefined;
  return {
    template: second ? undefined : first?.template,
    form() {
      if (!first)
        throw new UserError(
          `${home}: there is no chat template (chat_template.jinja, or in tokenizer_config.json), which puts ` +
            "conversations into words; name one with --chat-template",
        );
      if (second)
        throw new UserError(
          `${first.where} and ${second.where} have different chat templates; name the one that holds for all with ` +
            `--chat-template FILE, such as ${first.where}/chat_template.jinja`,
        );
      return (form ??= chatForm({ ...first, tokenizer, tokens }));
    },
  };
}

export interface EncoderOptions {
  /** Tokens at which texts are cut. */
  readonly maxLength: number;
  /** A folder of promptsource's templates (default: those that ship). */
  readonly prompts?: string | undefined;
  /** `--chat-template`. */
  readonly chatTemplate?: string | undefined;
  /** Whether an answer's score is the sum of its tokens' log-probabilities, or their mean. */
  readonly score?: "sum" | "mean" | undefined;
}

/**
 * What a model makes of examples: its tokenizer with prompts or without, or its image processor, out of
 * its folder. @param experts where a chat template may lie that the folder has not
 */
export async function encoderFor(
  folder: string,
  model: Model,
  { maxLength, prompts, chatTemplate, score = "sum" }: EncoderOptions,
  experts: readonly string[] = [],
): Promise<Encoder> {
  if (model.image) return imageRows(await loadProcessor(folder), model.image);
  const most = Math.min(maxLength, model.maxLength);
  const tokenizer = await loadTokenizer(folder, most);
  if (!model.scores) {
    const form = await embeddingForm([folder, ...experts]);
    return textRows(tokenizer, form);
  }
  return promptRows({
    chat: await chatReader({ home: folder, experts, asked: chatTemplate }, tokenizer),
    tokenizer,
    prompts: await loadPrompts(prompts),
    model,
    maxLength: most,
    mean: score === "mean",
  });
}
