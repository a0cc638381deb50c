/** Conversations as rows of tokens. */
import { UserError } from "../errors.js";
import type { TokenRow } from "../models/types.js";
import type { EncodedExample } from "./batches.js";
import { lastSaid, type ChatForm, type ChatTokens, type Part } from "./chat.js";
import type { Example } from "./examples.js";

/** A conversation up to the last token that is said in it; too long, it loses its end, as in transformers. */
function conversationRow({ ids, said }: ChatTokens, maxLength: number): TokenRow {
  const spans = said
    // The first token has nothing before it that could say it.
    .map(([from, to]): Part => [Math.max(1, from), Math.min(to, maxLength)])
    .filter(([from, to]) => to > from);
  const end = Math.max(0, ...spans.map(([, to]) => to));
  return { ids: ids.slice(0, end), types: [], spans };
}

/** What stands before the answer; too long, it loses its beginning. */
function askingRow({ prompt }: ChatTokens, maxLength: number, room: number): TokenRow {
  const most = Math.max(1, maxLength - room);
  return { ids: prompt.slice(Math.max(0, prompt.length - most)), types: [] };
}

/** What a conversation is made into rows with. */
export interface ChatRowOptions {
  readonly chat: ChatForm;
  readonly maxLength: number;
  /** Tokens that an answer may have. */
  readonly room: number;
}

/** A conversation of which everything that the assistant says is learned, and its last turn is asked for. */
export function chatExample(
  { messages, tools }: Pick<Example & { kind: "chat" }, "messages" | "tools">,
  { chat, maxLength, room }: ChatRowOptions,
): EncodedExample {
  const tokens = chat.tokens(messages, tools);
  if (tokens.prompt.length === 0)
    throw new UserError(
      "the chat template puts nothing before an answer; it must know add_generation_prompt",
    );
  const asks = askingRow(tokens, maxLength, Math.min(room, maxLength >> 1));
  const last = lastSaid(messages);
  // Where nothing is said, it is asked for alone.
  const row = last < 0 ? { ...asks, targets: [] } : conversationRow(tokens, maxLength);
  return {
    kind: "generate",
    rows: [row],
    asks,
    label: 0,
    length: row.ids.length,
    answers: last < 0 ? [] : [messages[last]?.content ?? ""],
  };
}
