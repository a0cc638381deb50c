import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { namedTokens } from "../../src/checkpoint/chat-template.js";
import { packageFolder } from "../../src/package.js";
import { chatForm, parseMessages, type ChatMessage } from "../../src/tasks/chat.js";
import { chatExample } from "../../src/tasks/chat-rows.js";
import { isAsked } from "../../src/tasks/decisions.js";
import { promptOf, targetsOf } from "../../src/tasks/batches.js";
import { chatTemplates } from "../../src/tasks/chat-templates.js";
import { loadTokenizer } from "../../src/tasks/tokenize.js";
import { golden } from "../helpers.js";

interface GoldenChats {
  templates: Record<string, { tokenizer: "bytes" | "pieces"; plain: string; marked: string }>;
  conversations: Record<string, ChatMessage[]>;
  cases: { template: string; conversation: string; ids: number[]; mask: number[]; prompt: number[] }[];
}

const data = golden<GoldenChats>("chat/chat");
const folders = {
  bytes: join(packageFolder, "test/golden/chat/bytes"),
  pieces: join(packageFolder, "test/golden/chat/pieces"),
};

async function formOf(tokenizer: "bytes" | "pieces", template: string) {
  const folder = folders[tokenizer];
  return chatForm({
    template,
    tokenizer: await loadTokenizer(folder, 512),
    tokens: await namedTokens(folder),
    where: "here",
  });
}

describe.each(["marked", "plain"] as const)("a template as models have it, %s", (form) => {
  test.each(data.cases)(
    "$template, $conversation: ids, what is said and the prompt are transformers'",
    async ({ template, conversation, ids, mask, prompt }) => {
      const { tokenizer, [form]: text } = data.templates[template]!;
      const found = (await formOf(tokenizer, text)).tokens(data.conversations[conversation]!, undefined);
      expect(found.ids).toEqual(ids);
      const said = ids.map((_, i) => Number(found.said.some(([from, to]) => i >= from && i < to)));
      expect(said).toEqual(mask);
      expect(found.prompt).toEqual(prompt);
    },
  );
});

const signs = data.templates["signs"]!;
const say = (role: string, content: string | null, more = {}): ChatMessage => ({ role, content, ...more });

test("a message of weight 0 is read and not learned, nor asked for", async () => {
  const form = await formOf("bytes", signs.plain);
  const messages = [
    say("user", "a"),
    say("assistant", "no", { weight: 0 }),
    say("user", "b"),
    say("assistant", "yes"),
  ];
  const tokenizer = await loadTokenizer(folders.bytes, 512);
  const { ids, said } = form.tokens(messages, undefined);
  expect(said.map(([from, to]) => tokenizer.text(ids.slice(from, to)))).toEqual(["yes"]);
  const reversed = form.tokens([...messages.slice(2), ...messages.slice(0, 2)], undefined);
  expect(tokenizer.text(reversed.prompt)).not.toContain("a\n");
});

test("what a template makes of a call is said, too", async () => {
  const template =
    "{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}" +
    "{% for c in m.tool_calls or [] %}<{{ c.name }}>{% endfor %}<|eot|>" +
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}{% if tools %}{{ tools | length }}{% endif %}";
  const form = await formOf("bytes", template);
  const tokenizer = await loadTokenizer(folders.bytes, 512);
  const { ids, said } = form.tokens(
    [say("user", "a"), say("assistant", null, { tool_calls: [{ name: "add" }] })],
    [1],
  );
  expect(said.map(([from, to]) => tokenizer.text(ids.slice(from, to)))).toEqual(["<add>"]);
  expect(tokenizer.text(ids).endsWith("1")).toBe(true);
});

test("too long a conversation loses its end, and a prompt its beginning; nothing said is nothing asked", async () => {
  const chat = await formOf("bytes", signs.plain);
  const messages = data.conversations["turns"]!;
  const whole = chat.tokens(messages, undefined);
  const cut = whole.said[1]![0] + 1;
  const example = chatExample({ messages, tools: undefined }, { chat, maxLength: cut, room: 4 });
  expect(example.rows[0]!.ids).toEqual(whole.ids.slice(0, cut));
  expect(example.rows[0]!.spans).toEqual([whole.said[0], [cut - 1, cut]]);
  expect(targetsOf(example.rows[0]!)).toHaveLength(whole.said[0]![1] - whole.said[0]![0] + 1);
  expect(promptOf(example).ids).toEqual(whole.prompt.slice(-(cut - 4)));
  expect(example).toMatchObject({ kind: "generate", answers: ["yes"] });
  const short = chatExample({ messages, tools: undefined }, { chat, maxLength: 5, room: 4 });
  expect(isAsked(short)).toBe(false);
  expect(isAsked(example)).toBe(true);
});

test("a template that cannot be filled in says where it is from and why", async () => {
  const mistral = await formOf("pieces", chatTemplates.get("mistral")!);
  expect(() => mistral.tokens([say("assistant", "x"), say("assistant", "x")], undefined)).toThrow(
    /^here: the chat template: user and assistant must take turns/,
  );
  await expect(formOf("bytes", "{% for i in range(999999) %}{% endfor %}")).rejects.toThrow(
    /^here: the chat template: it counts beyond 100,000/,
  );
  await expect(formOf("bytes", "{% for %}")).rejects.toThrow(/^here: the chat template: /);
});

test.each([...chatTemplates.keys()])("our own template %s has its turns found", async (name) => {
  const form = await formOf("bytes", chatTemplates.get(name)!);
  const tokenizer = await loadTokenizer(folders.bytes, 512);
  const { ids, said } = form.tokens(
    [say("user", "who"), say("assistant", "four"), say("user", "b"), say("assistant", "yes")],
    undefined,
  );
  expect(said.map(([from, to]) => tokenizer.text(ids.slice(from, to)).trim())).toEqual([
    expect.stringMatching(/^four/),
    expect.stringMatching(/^yes/),
  ]);
});

describe("messages of a row", () => {
  const parse = (fields: Record<string, unknown>) => parseMessages({ fields, where: "f:1" });
  const pair = [say("user", "q"), say("assistant", "a")];
  test.each([
    ["messages", { messages: pair }],
    [
      "ShareGPT's",
      {
        conversations: [
          { from: "human", value: "q" },
          { from: "gpt", value: "a" },
        ],
      },
    ],
    [
      "parts of text",
      { messages: [say("user", "q"), { role: "assistant", content: [{ type: "text", text: "a" }] }] },
    ],
    ["prompt and completion", { prompt: pair.slice(0, 1), completion: pair.slice(1) }],
  ])("%s", (_, fields) => {
    expect(parse(fields)).toEqual(pair);
  });
  test("a row without an answer is one without a label", () => {
    expect(parse({ messages: pair.slice(0, 1) })).toBeUndefined();
  });
  test.each([
    [{ text: "x" }, /^f:1: there are no messages \(columns: text\)/],
    [{ messages: "x" }, /"messages" is not a list/],
    [{ messages: [1] }, /message 1: a message must be an object/],
    [{ messages: [{ content: "x" }] }, /message 1: a message has no role/],
    [{ conversations: [{ from: "narrator", value: "x" }] }, /message 1: a message has no role/],
    [{ messages: [{ role: "user", content: [{ type: "image" }] }] }, /content must be a text/],
  ])("%j is refused", (fields, why) => {
    expect(() => parse(fields)).toThrow(why);
  });
});
