/** Conversations in a model's own words: its chat template, and which tokens of the result the assistant says. */
import { at } from "../at.js";
import { messageOf, UserError } from "../errors.js";
import { isObject, type Row } from "./columns.js";
import { compileJinja } from "./jinja.js";
import type { TextTokenizer } from "./tokenize.js";

/** One message, with whatever else its row says of it (`tool_calls`, `name`), which templates may read. */
export interface ChatMessage {
  readonly role: string;
  readonly content: string | null;
  readonly [more: string]: unknown;
}

/** A part of something, from a place and to before another. */
export type Part = readonly [from: number, to: number];

/** A conversation as a model reads it. */
export interface ChatTokens {
  readonly ids: readonly number[];
  /** Tokens that the assistant says, turn after turn, each with what ends it. */
  readonly said: readonly Part[];
  /** What stands before the last turn of the assistant, which is asked to speak. */
  readonly prompt: readonly number[];
}

export interface ChatForm {
  /** @throws UserError where the template cannot put the messages into words */
  tokens(messages: readonly ChatMessage[], tools: unknown): ChatTokens;
}

const assistant = "assistant";

/** What published files call those who speak (ShareGPT's `from`). */
const publishedRoles: Readonly<Record<string, string>> = {
  human: "user",
  user: "user",
  gpt: assistant,
  chatgpt: assistant,
  bing: assistant,
  assistant,
  model: assistant,
  system: "system",
  tool: "tool",
  observation: "tool",
};

/** A message's text: parts of text in a list are one after the other. */
function contentIn(content: unknown, where: string): string | null {
  if (typeof content === "string" || content === null) return content;
  if (content === undefined) return null;
  const parts: unknown[] = Array.isArray(content) ? content : [content];
  const texts = parts.map((part) => (isObject(part) ? part["text"] : part));
  if (texts.length > 0 && texts.every((text) => typeof text === "string")) return texts.join("");
  throw new UserError(`${where}: a message's content must be a text, or a list of parts of text`);
}

function messageIn(given: unknown, where: string): ChatMessage {
  if (!isObject(given))
    throw new UserError(`${where}: a message must be an object with a role and a content`);
  const { role, from, content, value, ...more } = given;
  if (typeof role === "string" && role !== "") return { ...more, role, content: contentIn(content, where) };
  const known = typeof from === "string" ? publishedRoles[from] : undefined;
  if (known === undefined)
    throw new UserError(
      `${where}: a message has no role; it must have {"role": "user", "content": …}, or {"from": "human", "value": …}`,
    );
  return { role: known, content: contentIn(value, where) };
}

/** A conversation's messages, by whichever of its columns has them; undefined where the row has none. */
function messagesUnder({ fields, where }: Row): unknown[] | undefined {
  const { messages, conversations, conversation, prompt, completion } = fields;
  const found = messages ?? conversations ?? conversation;
  if (Array.isArray(found)) return found;
  if (Array.isArray(prompt) && Array.isArray(completion)) return [...prompt, ...completion];
  if (found === undefined || found === null) return undefined;
  throw new UserError(`${where}: "messages" is not a list`);
}

/** Columns that hold conversations. */
export const chatColumns = ["messages", "conversations", "conversation"];

/** Whether a row is a conversation: a list of messages under one of their names. */
export const isConversation = ({ fields }: Pick<Row, "fields">): boolean => {
  const { prompt, completion } = fields;
  const lists = [...chatColumns.map((name) => fields[name]), completion && prompt];
  return lists.some((list) => Array.isArray(list) && list.every((one) => isObject(one)));
};

/**
 * A row's messages. Undefined where the assistant says nothing in them, as in a published test set.
 * @param mayLack returns them all the same
 * @throws UserError where there are none, or one is no message
 */
export function parseMessages(row: Row, mayLack = false): ChatMessage[] | undefined {
  const found = messagesUnder(row);
  if (!found)
    throw new UserError(
      `${row.where}: there are no messages (columns: ${Object.keys(row.fields).join(", ")}); a conversation is in ` +
        `${chatColumns.join(", ")}, or in prompt and completion`,
    );
  const messages = found.map((one, i) => messageIn(one, `${row.where}, message ${i + 1}`));
  if (!mayLack && !messages.some(isSaid)) return undefined;
  return messages;
}

const isFromAssistant = ({ role }: ChatMessage): boolean => role === assistant;

/** Whether a message is to be learned: one of the assistant's, but with a weight of 0 (OpenAI's form). */
const isSaid = (message: ChatMessage): boolean => isFromAssistant(message) && message["weight"] !== 0;

/** The message that is asked for when a text is generated: the assistant's last that counts; −1 where it says none. */
export const lastSaid = (messages: readonly ChatMessage[]): number => messages.findLastIndex(isSaid);

/** Characters that no text has; they stand where something is looked for. */
const [opening, closing, stand] = ["\uE0F0", "\uE0F1", "\uE0F2"];

/**
 * transformers marks what the assistant says by `{% generation %}`, which the renderer here leaves out: signs of ours
 * stand in its place, in a statement, so that white space around it goes where it would go.
 */
function withSigns(template: string): string {
  const tag = (name: string) => new RegExp(`\\{%([-+]?)\\s*${name}\\s*([-+]?)%\\}`, "g");
  const sign = (text: string) => `{%$1 if true %}${text}{% endif $2%}`;
  return template.replace(tag("generation"), sign(opening)).replace(tag("endgeneration"), sign(closing));
}

/** A text without the signs in it, and what stands between them. */
function betweenSigns(rendered: string): { readonly text: string; readonly parts: Part[] } {
  const parts: Part[] = [];
  let text = "";
  let from = 0;
  for (const piece of rendered.split(/([\uE0F0\uE0F1])/)) {
    if (piece === opening) from = text.length;
    else if (piece === closing) parts.push([from, text.length]);
    else text += piece;
  }
  return { text, parts };
}

/** How many characters two texts begin with together. */
function sharedCharacters(a: string, b: string): number {
  let count = 0;
  while (count < a.length && a[count] === b[count]) count++;
  return count;
}

/** How many they end with together, `most` at most. */
function sharedEnd(a: string, b: string, most: number): number {
  let count = 0;
  while (count < most && a[a.length - 1 - count] === b[b.length - 1 - count]) count++;
  return count;
}

/** The part of a text that is not in another: what one message makes of it. */
function differing(text: string, other: string): Part {
  const from = sharedCharacters(text, other);
  return [from, text.length - sharedEnd(text, other, Math.min(text.length, other.length) - from)];
}

const quoted = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** How many tokens two lists begin with together. */
function sharedTokens(a: readonly number[], b: readonly number[]): number {
  const other = a.findIndex((id, i) => b[i] !== id);
  return other === -1 ? a.length : other;
}

/** What a template is filled in with beside messages. */
export interface ChatOptions {
  readonly template: string;
  readonly tokenizer: Pick<TextTokenizer, "whole" | "specials">;
  /** `bos_token` and others. */
  readonly tokens: Readonly<Record<string, string>>;
  /** Where the template is from, for messages. */
  readonly where: string;
}

/**
 * A model's conversations. Where the template marks what the assistant says (`{% generation %}`), that is it, as in
 * transformers. Elsewhere it is what each of its messages makes of the text, with the special token that ends it.
 */
export function chatForm({ template, tokenizer, tokens, where }: ChatOptions): ChatForm {
  const told = <T>(make: () => T): T => {
    try {
      return make();
    } catch (error) {
      throw new UserError(`${where}: the chat template: ${messageOf(error)}`);
    }
  };
  const signed = withSigns(template);
  const isMarked = signed !== template;
  const compiled = told(() => compileJinja(signed));
  const render = (messages: readonly ChatMessage[], tools: unknown, asks = false): string =>
    told(() =>
      compiled.render({
        ...tokens,
        messages,
        tools: tools ?? null,
        documents: null,
        add_generation_prompt: asks,
      }),
    );
  const ends = tokenizer.specials.map(quoted);
  const ending = new RegExp(`^\\s*(?:${ends.join("|")})`);
  /** What a message of the assistant's is of a text. */
  const partOf = (text: string, messages: readonly ChatMessage[], i: number, tools: unknown): Part => {
    const other = messages.map((one, n) => (n === i ? { role: one.role, content: stand } : one));
    const [from, to] = differing(text, betweenSigns(render(other, tools)).text);
    const end = ends.length > 0 ? ending.exec(text.slice(to)) : null;
    return [from, to + (end?.[0].length ?? 0)];
  };
  return {
    tokens(messages, tools) {
      const { text, parts: marked } = betweenSigns(render(messages, tools));
      const places = [...messages.keys()].filter((i) => isSaid(at(messages, i)));
      const parts = isMarked ? marked : places.map((i) => partOf(text, messages, i, tools));
      const ids = tokenizer.whole(text, false);
      /** The token that a character is in. */
      const tokenAt = (character: number) =>
        sharedTokens(tokenizer.whole(text.slice(0, character), false), ids);
      const tokensOf = ([from, to]: Part): Part => {
        const before = tokenizer.whole(text.slice(0, to), false);
        const shared = sharedTokens(before, ids);
        // A token that only begins before the end is of it, too.
        return [tokenAt(from), shared + Number(shared < before.length)];
      };
      const last = lastSaid(messages);
      const before = last < 0 ? messages : messages.slice(0, last);
      const asked = betweenSigns(render(before, tools, true)).text;
      return {
        ids,
        said: parts.filter(([from, to]) => to > from).map(tokensOf),
        prompt: tokenizer.whole(asked, false),
      };
    },
  };
}
