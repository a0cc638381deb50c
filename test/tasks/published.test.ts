import { expect, test } from "vitest";
import { UserError } from "../../src/errors.js";
import type { Example } from "../../src/tasks/examples.js";
import { parseExample } from "../../src/tasks/parse.js";
import { loadPrompts } from "../../src/tasks/prompts.js";
import { loadTasks } from "../../src/tasks/registry.js";

/** Rows of data sets as they are published: the parts of an example, and what the templates that ship make of them. */
const registry = await loadTasks();
const prompts = await loadPrompts();
const read = (id: string, fields: Record<string, unknown>) =>
  parseExample({ fields, where: "test.jsonl:1" }, registry.get(id)!);

const lettered = { choices: { text: ["ice", "stone"], label: ["A", "B"] }, answerKey: "B" };
type Case = readonly [id: string, fields: Record<string, unknown>, texts: Example["texts"], label: number];
const ranked: readonly Case[] = [
  [
    "wsc",
    {
      text: "Ann saw Bo's dog, so she ran.",
      span1_text: "Ann",
      span2_text: "she",
      span1_index: 0,
      span2_index: 5,
      label: 1,
    },
    [["Ann saw Bo's dog, so [she] ran.", "Ann"]],
    1,
  ],
  [
    // A span of two words, and what stands behind it.
    "wsc",
    {
      text: "It is the dog, of course.",
      span1_text: "It",
      span2_text: "The Dog",
      span1_index: 0,
      span2_index: 2,
      label: 0,
    },
    [["It is [the dog], of course.", "It"]],
    0,
  ],
  [
    "wic",
    { word: "bank", sentence1: "A bank.", sentence2: "Banks.", start1: 2, label: 0 },
    [["bank : A bank.", "bank : Banks."]],
    0,
  ],
  [
    "winogrande",
    { sentence: "Ann helped Bo as _ was $1 short.", option1: "Ann", option2: "$&", answer: "2" },
    [
      ["Ann helped Bo as _ was $1 short.", "Ann helped Bo as Ann was $1 short."],
      ["Ann helped Bo as _ was $1 short.", "Ann helped Bo as $& was $1 short."],
    ],
    1,
  ],
  [
    "hellaswag",
    { ctx: "He", endings: ["a", "b"], label: "1", ctx_a: "x" },
    [
      ["He", "a"],
      ["He", "b"],
    ],
    1,
  ],
  [
    "story_cloze",
    {
      input_sentence_1: "A.",
      input_sentence_2: "B.",
      input_sentence_3: "C.",
      input_sentence_4: "D.",
      sentence_quiz1: "E.",
      sentence_quiz2: "F.",
      answer_right_ending: 2,
    },
    [
      ["A. B. C. D.", "E."],
      ["A. B. C. D.", "F."],
    ],
    1,
  ],
  [
    "cosmos_qa",
    { context: "C.", question: "Q?", answer0: "a", answer1: "b", answer2: "c", answer3: "d", label: 3 },
    ["a", "b", "c", "d"].map((one) => ["C. Q?", one] as const),
    3,
  ],
  [
    // Counted from one.
    "social_iqa",
    { context: "C.", question: "Q?", answerA: "a", answerB: "b", answerC: "c", label: "1" },
    ["a", "b", "c"].map((one) => ["C. Q?", one] as const),
    0,
  ],
  [
    "quail",
    { context: "C.", question: "Q?", answers: ["a", "b", "c", "d"], correct_answer_id: 2 },
    ["a", "b", "c", "d"].map((one) => ["C. Q?", one] as const),
    2,
  ],
  [
    "quartz",
    { para: "P.", question: "Q?", ...lettered },
    [
      ["P. Q?", "ice"],
      ["P. Q?", "stone"],
    ],
    1,
  ],
  [
    "qasc",
    { question: "Q?", fact1: "f", ...lettered },
    [
      ["Q?", "ice"],
      ["Q?", "stone"],
    ],
    1,
  ],
  [
    "arc_easy",
    { question: "Q?", ...lettered },
    [
      ["Q?", "ice"],
      ["Q?", "stone"],
    ],
    1,
  ],
  [
    // Some of ARC's letters are numbers.
    "arc_easy",
    { question: "Q?", choices: { text: ["x", "y"], label: ["1", "2"] }, answerKey: "1" },
    [
      ["Q?", "x"],
      ["Q?", "y"],
    ],
    0,
  ],
  [
    "openbookqa",
    { question_stem: "Q?", ...lettered },
    [
      ["Q?", "ice"],
      ["Q?", "stone"],
    ],
    1,
  ],
  ["wiki_qa", { question: "Q?", answer: "A.", label: 1, document_title: "T" }, [["Q?", "A."]], 1],
  [
    "dream",
    { dialogue: ["M: Hi.", "W: Hello."], question: "Who?", choice: ["a", "b", "c"], answer: "c" },
    ["a", "b", "c"].map((one) => ["M: Hi.\nW: Hello.\nWho?", one] as const),
    2,
  ],
  ["app_reviews", { package_name: "x", review: "Good.", date: "d", star: 5 }, [["Good."]], 4],
  ["imdb", { text: "Good.", label: 1 }, [["Good."]], 1],
  ["ag_news", { text: "News.", label: 3 }, [["News."]], 3],
  ["dbpedia", { title: "T", content: " Text. ", label: 13 }, [["T Text."]], 13],
  [
    // In an order that does not tell the right one.
    "sciq",
    {
      question: "Q?",
      distractor1: "c",
      distractor2: "a",
      distractor3: "d",
      correct_answer: "b",
      support: "s",
    },
    ["a", "b", "c", "d"].map((one) => ["Q?", one] as const),
    1,
  ],
  ["boolq", { question: "is it", passage: "It is.", label: 1 }, [["is it", "It is."]], 1],
  ["stsb", { sentence1: "A.", sentence2: "B.", label: 2.5 }, [["A.", "B."]], 2.5],
  ["mnli", { premise: "A.", hypothesis: "B.", label: 2 }, [["A.", "B."]], 2],
  ["qnli", { question: "A?", sentence: "B.", label: 1 }, [["A?", "B."]], 1],
  ["qqp", { question1: "A?", question2: "B?", label: 1 }, [["A?", "B?"]], 1],
];

test.each(ranked)("%s", (id, fields, texts, label) => {
  const example = read(id, fields)!;
  expect(example.texts).toEqual(texts);
  expect(example.label).toBe(label);
  // Templates are written for the row as it stands in the file.
  expect(example).toHaveProperty("fields", fields);
  const task = registry.get(id)!;
  if (task.kind === "regression") return;
  for (const template of prompts.of(task)) {
    const put = template.put(example)!;
    expect(put.label, template.name).toBe(label);
    expect(put.prompt, template.name).not.toBe("");
  }
});

test.each([
  [
    "ropes",
    { background: "B.", situation: "S.", question: "Q?", answers: { text: ["x", "y"] } },
    "B. S. Q?",
    ["x", "y"],
  ],
  [
    "adversarial_qa",
    { context: "C.", question: "Q?", answers: { text: ["x"], answer_start: [0] } },
    "C. Q?",
    ["x"],
  ],
  ["hotpot_qa", { question: "Q?", answer: "x", type: "bridge" }, "Q?", ["x"]],
  ["common_gen", { concepts: ["dog", "run"], target: "A dog runs." }, "dog, run", ["A dog runs."]],
  [
    "wiki_bio",
    {
      input_text: { table: { column_header: ["name", "born"], content: ["Ann", "1900\n"] }, context: "ann" },
      target_text: "Ann is.\n",
    },
    "name: Ann\nborn: 1900",
    ["Ann is."],
  ],
  ["cnn_dailymail", { article: "Long.", highlights: "Short.", id: "1" }, "Long.", ["Short."]],
  ["gsm8k", { question: "Two and two?", answer: "2 + 2 = 4\n#### 4" }, "Two and two?", ["2 + 2 = 4\n#### 4"]],
  [
    "math",
    { problem: "Half?", solution: "It is $\\boxed{\\frac12}$.", level: "1" },
    "Half?",
    ["It is $\\boxed{\\frac12}$."],
  ],
  ["xsum", { document: "Long.", summary: "Short." }, "Long.", ["Short."]],
] as const)("%s", (id, fields, text, answers) => {
  const example = read(id, fields)!;
  expect(example).toMatchObject({ kind: "generate", texts: [[text]], answers, fields });
  for (const template of prompts.of(registry.get(id)!))
    expect(template.put(example)!.answers, template.name).toEqual([answers[0]]);
});

test("a published test set hides its labels, in each set's own way", () => {
  expect(read("winogrande", { sentence: "_", option1: "a", option2: "b", answer: "" })).toBeUndefined();
  expect(read("hellaswag", { ctx: "x", endings: ["a", "b"], label: "" })).toBeUndefined();
  expect(read("qasc", { question: "Q?", ...lettered, answerKey: "" })).toBeUndefined();
  expect(read("wic", { word: "w", sentence1: "a", sentence2: "b", label: -1 })).toBeUndefined();
  expect(
    read("ropes", { background: "B", situation: "S", question: "Q", answers: { text: [] } }),
  ).toBeUndefined();
});

test.each([
  [
    "social_iqa",
    { context: "C", question: "Q", answerA: "a", answerB: "b", answerC: "c", label: "0" },
    "counted from 1",
  ],
  [
    "social_iqa",
    { context: "C", question: "Q", answerA: "a", answerB: "b", answerC: "c", label: "4" },
    "unknown label 3",
  ],
  ["winogrande", { sentence: "_", option1: "a", option2: "b", answer: "1.5" }, "counted from 1"],
  ["qasc", { question: "Q?", ...lettered, answerKey: "C" }, 'the answer "C" is none of A, B'],
  ["qasc", { question: "Q?", choices: ["a"], answerKey: "A" }, '"choices.label" is not a list of texts'],
  ["hellaswag", { ctx: "x", endings: "a", label: 0 }, '"endings" is not a list of texts'],
  ["cosmos_qa", { context: 3, question: "Q", answer0: "a", answer3: "b" }, '"context" is not a text'],
  [
    "wsc",
    { text: "Ann ran.", span1_text: "Ann", span2_text: "she", span2_index: 1, label: 1 },
    '"she" does not stand at its span2_index',
  ],
] as const)("%s: what is not as published is refused: %o", (id, fields, message) => {
  expect(() => read(id, fields)).toThrow(UserError);
  expect(() => read(id, fields)).toThrow(/^test\.jsonl:1: /);
  expect(() => read(id, fields)).toThrow(message);
});

test("a row in our own names stays as it is, and columns that the user names win", () => {
  const own = { text_a: "x", choices: ["a", "b"], label: 1 };
  expect(read("winogrande", own)).toMatchObject({
    texts: [
      ["x", "a"],
      ["x", "b"],
    ],
    label: 1,
  });
  const columns = { text: "question", choices: "answers", label: "right" };
  const fields = { context: "C", question: "Q", answers: ["a", "b"], correct_answer_id: 0, right: 1 };
  const task = { ...registry.get("quail")!, columns };
  expect(parseExample({ fields, where: "x" }, task)).toMatchObject({
    texts: [
      ["Q", "a"],
      ["Q", "b"],
    ],
    label: 1,
  });
});
