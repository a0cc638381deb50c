import { expect, test } from "vitest";
import type { EncodedExample } from "../../src/tasks/batches.js";
import { encodeMixed, encodeVariants, promptRows } from "../../src/tasks/encoders.js";
import type { Example } from "../../src/tasks/examples.js";
import type { Prompts } from "../../src/tasks/prompts.js";
import type { Task } from "../../src/tasks/registry.js";
import type { TextTokenizer } from "../../src/tasks/tokenize.js";

/** A token a word, its number; 0 ends a text where special tokens are asked for. */
const tokenizer: TextTokenizer = {
  vocabulary: 1000,
  specials: [],
  encode: () => ({ ids: [], types: [] }),
  encodeWords: () => ({ ids: [], types: [], firstOf: [] }),
  encodeWindows: () => [],
  whole: (text, special) => [...text.trim().split(" ").map(Number), ...(special ? [0] : [])],
  text: (ids) => ids.join(" "),
};
/** The same without an end, as a decoder's tokenizer has it. */
const bare: TextTokenizer = { ...tokenizer, whole: (text) => text.trim().split(" ").map(Number) };

const task = { id: "t", kind: "pair", labels: ["a", "b"] } as unknown as Task;
const example = { texts: [["x"]], label: 0 } as never;
const prompts = {
  of: () => [{ name: "one", put: () => ({ prompt: "1 2 3 4 5 6 7 8", answers: ["91", "92 93"], label: 0 }) }],
  fileOf: () => "prompts.yaml",
};
const rowsOf = (scores: "decoder" | "encoder-decoder", encoder: TextTokenizer, maxLength: number) =>
  promptRows({
    tokenizer: encoder,
    prompts,
    model: { scores, generation: undefined },
    maxLength,
    mean: false,
    chat: { form: () => expect.unreachable(), template: undefined },
  }).encode(example, task)[0]!.rows;

test("in front of an encoder too long a prompt loses its end, and keeps the token that ends it", () => {
  const [first, second] = rowsOf("encoder-decoder", tokenizer, 5);
  expect(first!.ids).toEqual([1, 2, 3, 4, 0]);
  expect(first!.targets).toEqual([91, 0]);
  expect(second!.targets).toEqual([92, 93, 0]);
});

test("in front of a decoder it loses its beginning: the answer follows on its end", () => {
  const [first, second] = rowsOf("decoder", bare, 5);
  expect(first).toMatchObject({ ids: [5, 6, 7, 8], targets: [91] });
  expect(second).toMatchObject({ ids: [6, 7, 8], targets: [92, 93] });
});

test("a prompt that fits is whole", () => {
  expect(rowsOf("decoder", bare, 20)[0]!.ids).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  expect(rowsOf("encoder-decoder", tokenizer, 9)[0]!.ids).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 0]);
});

test("a template leaves out what is none of its examples, which are learned in another", () => {
  const put = (prompt: string) => ({ prompt, answers: ["91", "92"], label: 1 });
  const isOdd = ({ label }: Example) => label % 2 === 1;
  const partial: Prompts = {
    of: () => [
      { name: "odd", put: (one) => (isOdd(one) ? put("1") : undefined) },
      { name: "all", put: () => put("2") },
      { name: "none", put: () => undefined },
    ],
    fileOf: () => "prompts.yaml",
  };
  const encoder = promptRows({
    tokenizer,
    prompts: partial,
    model: { scores: "encoder-decoder", generation: undefined },
    maxLength: 9,
    mean: false,
    chat: { form: () => expect.unreachable(), template: undefined },
  });
  const examples = [0, 1, 2, 3].map((label) => ({ texts: [["x"]], label }) as never);
  const said = (encoded: readonly EncodedExample[]) => encoded.map(({ rows }) => rows[0]!.ids[0]);
  // The one that takes them all stands first, and stands for the task.
  expect(encodeVariants(examples, encoder, task).map(said)).toEqual([
    [2, 2, 2, 2],
    [1, 1],
  ]);
  expect(said(encodeMixed(examples, encoder, task))).toEqual([2, 2, 2, 2]);
  // The right answer is the template's.
  expect(encodeMixed(examples, encoder, task).map(({ label }) => label)).toEqual([1, 1, 1, 1]);
});

test("solved examples stand before what is asked, and what is said ends where the task says", () => {
  const asked: Prompts = {
    of: () => [
      { name: "one", put: ({ label }) => ({ prompt: String(label), answers: [`9${label}`], label: 0 }) },
    ],
    fileOf: () => "prompts.yaml",
  };
  const given: string[] = [];
  const noting: TextTokenizer = {
    ...tokenizer,
    whole: (text) => {
      given.push(text);
      return [1, 2];
    },
  };
  const encoder = promptRows({
    tokenizer: noting,
    prompts: asked,
    model: { scores: "encoder-decoder", generation: undefined },
    maxLength: 9,
    mean: false,
    chat: { form: () => expect.unreachable(), template: undefined },
  });
  const example = (label: number) => ({ kind: "generate", texts: [["x"]], label, answers: ["y"] }) as never;
  const said = { ...task, kind: "generate", max_new_tokens: 4, stop: ["7", "5"] } as Task;
  encoder.encode(example(3), said, [example(1), example(2)]);
  expect(given).toContain("1 91\n\n2 92\n\n3");
  // The tokenizer says a token's number.
  const { generation } = encoder.answering(said);
  expect(generation!.text([1, 5, 2, 7])).toBe("1 ");
  expect(generation!.text([1, 2])).toBe("1 2");
});
