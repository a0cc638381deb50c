import { expect, test } from "vitest";
import { renumbered } from "../../src/tasks/examples.js";
import { parseExample } from "../../src/tasks/parse.js";
import { makeTask } from "../../src/tasks/registry.js";

/** Rows of every kind beside a class, in the forms that files have them. */
const where = "data/t/test.jsonl:1";
const stars = makeTask("stars", { kind: "regression" });
const topics = makeTask("topics", { kind: "multi-label", labels: ["art", "food", "money"] });
const entities = makeTask("entities", { kind: "tokens", labels: ["O", "B-X", "I-X"] });
const places = makeTask("places", { kind: "span" });
const parse = (task: Parameters<typeof parseExample>[1], fields: object) =>
  parseExample({ fields: fields as Record<string, unknown>, where }, task);

test("a number, as a number or a text, of one text or two; none where the row has none", () => {
  expect(parse(stars, { text: "x", label: 2.5 })).toMatchObject({ texts: [["x"]], label: 2.5 });
  expect(parse(stars, { sentence1: "x", sentence2: "y", score: "-1e1" })).toMatchObject({
    texts: [["x", "y"]],
    label: -10,
  });
  for (const label of [undefined, null, ""]) expect(parse(stars, { text: "x", label })).toBeUndefined();
  expect(parse(stars, { text: "x", label: " " })).toBeUndefined();
  for (const label of ["0x10", "Infinity", "1_0", "1,5"])
    expect(() => parse(stars, { text: "x", label })).toThrow(`${where}: "${label}" is no number`);
  expect(() => parse(stars, { text: "x", label: "many" })).toThrow(`${where}: "many" is no number`);
  expect(() => parse(stars, { text: "x", label: [1] })).toThrow("is no number");
});

test.each([
  [{ labels: ["money", "art"] }, [1, 0, 1]],
  [{ labels: [1] }, [0, 1, 0]],
  [{ labels: [0, 1, 1] }, [0, 1, 1]],
  [{ labels: [true, false, false] }, [1, 0, 0]],
  [{ labels: [] }, [0, 0, 0]],
  [{ labels: "food; art" }, [1, 1, 0]],
  [{ labels: "" }, [0, 0, 0]],
  [{ art: 1, food: 0, money: 1 }, [1, 0, 1]],
  [{ art: "0", food: "1", money: "0" }, [0, 1, 0]],
])("labels that hold: %j", (fields, marks) => {
  expect(parse(topics, { text: "x", ...fields })).toMatchObject({ kind: "mark", marks });
});

test("labels that are none, and rows without any", () => {
  expect(parse(topics, { text: "x" })).toBeUndefined();
  expect(() => parse(topics, { text: "x", labels: ["music"] })).toThrow(`${where}: unknown label "music"`);
  expect(() => parse(topics, { text: "x", labels: [3] })).toThrow("unknown label 3");
  expect(() => parse(topics, { text: "x", labels: 2 })).toThrow('"labels" must be a list');
});

test("of two labels, [0, 1] may be both or the second: it is refused", () => {
  const two = makeTask("topics", { kind: "multi-label", labels: ["art", "food"] });
  expect(() => parse(two, { text: "x", labels: [0, 1] })).toThrow(`${where}: [0,1] may be numbers`);
  expect(parse(two, { text: "x", labels: [true, false] })).toMatchObject({ marks: [1, 0] });
  expect(parse(two, { text: "x", labels: ["art", "food"] })).toMatchObject({ marks: [1, 1] });
  expect(parse(two, { text: "x", labels: [1] })).toMatchObject({ marks: [0, 1] });
});

test("words with a class each, by name or number; −100 is none", () => {
  expect(parse(entities, { tokens: ["a", "b", "c"], ner_tags: ["B-X", 2, -100] })).toMatchObject({
    words: ["a", "b", "c"],
    tags: [1, 2, -1],
  });
  expect(parse(entities, { tokens: ["a"] })).toBeUndefined();
  expect(() => parse(entities, { tokens: ["a", "b"], tags: [0] })).toThrow("there are 1 tags of 2 tokens");
  expect(() => parse(entities, { tokens: [], tags: [] })).toThrow(
    'needs "tokens", a list of one text or more',
  );
  expect(() => parse(entities, { tokens: "a b", tags: [0] })).toThrow('"tokens" is not a list');
  expect(() => parse(entities, { tokens: ["a"], tags: [9] })).toThrow("unknown tag 9");
});

test("spans: places are counted in characters; an answer that does not stand there is refused", () => {
  const row = { question: "q", context: "🙂 in Rome, Rome" };
  const answers = (text: string[], answer_start: number[]) => ({ ...row, answers: { text, answer_start } });
  expect(parse(places, answers(["Rome"], [5]))).toMatchObject({ answers: [{ text: "Rome", start: 6 }] });
  expect(parse(places, answers(["Rome", "Rome"], [5, 11]))).toMatchObject({
    answers: [{ start: 6 }, { start: 12 }],
  });
  expect(parse(places, answers([], [])), "the text does not answer").toMatchObject({ answers: [] });
  expect(parse(places, row), "no answers at all: a published test set").toBeUndefined();
  expect(parse(places, { ...row, answers: [{ text: "Rome", answer_start: 5 }] })).toMatchObject({
    answers: [{ start: 6 }],
  });
  expect(() => parse(places, answers(["Rome"], [4]))).toThrow("does not stand where its answer_start says");
  expect(() => parse(places, answers(["Paris"], [5]))).toThrow('the answer "Paris"');
  expect(() => parse(places, { ...row, answers: "Rome" })).toThrow('"answers" must be');
});

test("columns of other names are read under ours, and a column that is not there is named", () => {
  const mapped = makeTask("stars", { kind: "regression", columns: { text: "body", label: "stars" } });
  // What the mapping leaves out is not taken for what it names.
  expect(parse(mapped, { body: "x", text: "other", stars: 4, label: 0 })).toMatchObject({
    texts: [["x"]],
    label: 4,
  });
  expect(() => parse(mapped, { body: "x" })).toThrow(`${where}: there is no column "stars" for label`);
});

test("classes are numbered as a model has them", () => {
  const order = [2, 0, 1];
  expect(renumbered(parse(topics, { text: "x", labels: ["art", "money"] })!, order)).toMatchObject({
    marks: [0, 1, 1],
  });
  expect(renumbered(parse(entities, { tokens: ["a", "b"], tags: [1, -100] })!, order)).toMatchObject({
    tags: [0, -1],
  });
});

test.each([
  [{ kind: "regression", metrics: ["accuracy"] }, /accuracy is none of a task of kind regression/],
  [
    { kind: "single", labels: 3, metrics: ["f1"] },
    /f1 is none of a task of kind single that has not two labels/,
  ],
  [
    { kind: "multi-label" },
    /only a choice, a number, a span, a chat, vectors and a text to be said have none/,
  ],
  [{ kind: "tokens", labels: ["a", "b"], metrics: ["rouge1"] }, /rouge1 is none of a task of kind tokens/],
] as const)("a registry entry %j is refused", (entry, message) => {
  expect(() => makeTask("t", entry as never)).toThrow(message);
});
