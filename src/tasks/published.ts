/**
 * Data sets as they are published: their columns as the parts of an example (text_a, text_b, choices, label, answers).
 * One entry a data set; a row that has not all of an entry's columns is in another form, and is read by its names.
 */
import { messageOf, UserError } from "../errors.js";
import { isObject, type Row } from "./columns.js";
import type { Task } from "./registry.js";

type Fields = Row["fields"];

interface Form {
  /** Columns that tell the published form. */
  readonly columns: readonly string[];
  /** @throws Error where a value is not what the data set has there */
  parts(fields: Fields): Fields;
}

function text(fields: Fields, name: string): string {
  const value = fields[name];
  if (typeof value === "string") return value;
  throw new Error(`"${name}" is not a text`);
}

function texts(value: unknown, name: string): string[] {
  if (Array.isArray(value) && value.every((one) => typeof one === "string")) return value;
  throw new Error(`"${name}" is not a list of texts`);
}

/** Texts in one, a space between them. */
const joined = (fields: Fields, ...names: readonly string[]): string =>
  names.map((name) => text(fields, name).trim()).join(" ");

const isHidden = (value: unknown): boolean =>
  value === undefined || value === null || value === "" || value === -1 || value === "-1";

/** A label that is counted from 1, counted from 0. */
function fromOne(value: unknown): number | undefined {
  if (isHidden(value)) return undefined;
  const number = Number(value);
  if (Number.isInteger(number) && number >= 1) return number - 1;
  throw new Error(`its labels are counted from 1, and ${JSON.stringify(value)} is none`);
}

/** Where an answer stands among choices. */
function placeOf(value: unknown, among: readonly string[]): number | undefined {
  if (isHidden(value)) return undefined;
  const place = among.indexOf(String(value));
  if (place >= 0) return place;
  throw new Error(`the answer ${JSON.stringify(value)} is none of ${among.join(", ")}`);
}

/** Choices with a letter each, as AllenAI's data sets have them, and the letter that is right. */
function lettered(fields: Fields): Fields {
  const { choices, answerKey } = fields;
  if (!isObject(choices)) throw new Error('"choices" is not an object with text and label');
  const letters = texts(choices["label"], "choices.label");
  return { choices: texts(choices["text"], "choices.text"), label: placeOf(answerKey, letters) };
}
const letteredColumns = ["choices", "answerKey"];

/** A text with the words from one on in brackets. */
function bracketed(sentence: string, words: string, place: unknown): string {
  const all = sentence.split(" ");
  const count = words.split(" ").length;
  const from = typeof place === "number" ? place : NaN;
  const found = all.slice(from, from + count).join(" ");
  if (!found.toLowerCase().startsWith(words.toLowerCase()))
    throw new Error(`"${words}" does not stand at its span2_index`);
  const rest = found.slice(words.length);
  return [...all.slice(0, from), `[${found.slice(0, words.length)}]${rest}`, ...all.slice(from + count)].join(
    " ",
  );
}

/** The choices of SciQ in an order that tells nothing. */
function sciq(fields: Fields): Fields {
  const right = text(fields, "correct_answer");
  const choices = [right, ...["distractor1", "distractor2", "distractor3"].map((name) => text(fields, name))];
  choices.sort();
  return { text_a: text(fields, "question"), choices, label: choices.indexOf(right) };
}

/** What is known of somebody, as "name: value" lines. */
function infobox(fields: Fields): string {
  const { input_text: input } = fields;
  const table = isObject(input) ? input["table"] : undefined;
  if (!isObject(table)) throw new Error('"input_text" has no table');
  const headers = texts(table["column_header"], "column_header");
  const contents = texts(table["content"], "content");
  return headers.map((header, i) => `${header}: ${(contents[i] ?? "").trim()}`).join("\n");
}

const summary = (from: string, to: string): Form => ({
  columns: [from, to],
  parts: (fields) => ({ text_a: text(fields, from), answers: [text(fields, to)] }),
});

const forms: Readonly<Record<string, Form>> = {
  wsc: {
    columns: ["text", "span1_text", "span2_text", "span2_index"],
    parts: (fields) => ({
      text_a: bracketed(text(fields, "text"), text(fields, "span2_text"), fields["span2_index"]),
      text_b: text(fields, "span1_text"),
    }),
  },
  wic: {
    columns: ["word", "sentence1", "sentence2"],
    parts: (fields) => ({
      text_a: `${text(fields, "word")} : ${text(fields, "sentence1")}`,
      text_b: `${text(fields, "word")} : ${text(fields, "sentence2")}`,
    }),
  },
  winogrande: {
    columns: ["sentence", "option1", "option2", "answer"],
    parts: (fields) => ({
      text_a: text(fields, "sentence"),
      choices: ["option1", "option2"].map((name) =>
        text(fields, "sentence").replace("_", () => text(fields, name)),
      ),
      label: fromOne(fields["answer"]),
    }),
  },
  hellaswag: {
    columns: ["ctx", "endings"],
    parts: (fields) => ({ text_a: text(fields, "ctx"), choices: texts(fields["endings"], "endings") }),
  },
  story_cloze: {
    columns: ["input_sentence_1", "input_sentence_4", "sentence_quiz1", "sentence_quiz2"],
    parts: (fields) => ({
      text_a: joined(fields, ...[1, 2, 3, 4].map((i) => `input_sentence_${i}`)),
      choices: [text(fields, "sentence_quiz1"), text(fields, "sentence_quiz2")],
      label: fromOne(fields["answer_right_ending"]),
    }),
  },
  cosmos_qa: {
    columns: ["context", "question", "answer0", "answer3"],
    parts: (fields) => ({
      text_a: joined(fields, "context", "question"),
      choices: [0, 1, 2, 3].map((i) => text(fields, `answer${i}`)),
    }),
  },
  social_iqa: {
    columns: ["context", "question", "answerA", "answerC"],
    parts: (fields) => ({
      text_a: joined(fields, "context", "question"),
      choices: ["A", "B", "C"].map((letter) => text(fields, `answer${letter}`)),
      label: fromOne(fields["label"]),
    }),
  },
  quail: {
    columns: ["context", "question", "answers", "correct_answer_id"],
    parts: (fields) => ({
      text_a: joined(fields, "context", "question"),
      choices: texts(fields["answers"], "answers"),
      label: fields["correct_answer_id"],
    }),
  },
  quartz: {
    columns: ["para", "question", ...letteredColumns],
    parts: (fields) => ({ text_a: joined(fields, "para", "question"), ...lettered(fields) }),
  },
  qasc: {
    columns: ["question", ...letteredColumns],
    parts: (fields) => ({ text_a: text(fields, "question"), ...lettered(fields) }),
  },
  arc_easy: {
    columns: ["question", ...letteredColumns],
    parts: (fields) => ({ text_a: text(fields, "question"), ...lettered(fields) }),
  },
  openbookqa: {
    columns: ["question_stem", ...letteredColumns],
    parts: (fields) => ({ text_a: text(fields, "question_stem"), ...lettered(fields) }),
  },
  wiki_qa: {
    columns: ["question", "answer", "label"],
    parts: (fields) => ({ text_a: text(fields, "question"), text_b: text(fields, "answer") }),
  },
  ropes: {
    columns: ["background", "situation", "question"],
    parts: (fields) => ({ text_a: joined(fields, "background", "situation", "question") }),
  },
  dream: {
    columns: ["dialogue", "question", "choice", "answer"],
    parts: (fields) => ({
      text_a: [...texts(fields["dialogue"], "dialogue"), text(fields, "question")].join("\n"),
      choices: texts(fields["choice"], "choice"),
      label: placeOf(fields["answer"], texts(fields["choice"], "choice")),
    }),
  },
  adversarial_qa: {
    columns: ["context", "question", "answers"],
    parts: (fields) => ({ text_a: joined(fields, "context", "question") }),
  },
  hotpot_qa: {
    columns: ["question", "answer"],
    parts: (fields) => ({ text_a: text(fields, "question"), answers: [text(fields, "answer")] }),
  },
  app_reviews: {
    columns: ["review", "star"],
    parts: (fields) => ({ text_a: text(fields, "review"), label: fromOne(fields["star"]) }),
  },
  dbpedia: {
    columns: ["title", "content", "label"],
    parts: (fields) => ({ text_a: joined(fields, "title", "content") }),
  },
  common_gen: {
    columns: ["concepts", "target"],
    parts: (fields) => ({
      text_a: texts(fields["concepts"], "concepts").join(", "),
      answers: [text(fields, "target")],
    }),
  },
  wiki_bio: {
    columns: ["input_text", "target_text"],
    parts: (fields) => ({ text_a: infobox(fields), answers: [text(fields, "target_text").trim()] }),
  },
  cnn_dailymail: summary("article", "highlights"),
  xsum: summary("document", "summary"),
  gsm8k: summary("question", "answer"),
  math: summary("problem", "solution"),
  sciq: { columns: ["question", "correct_answer", "distractor1", "distractor3"], parts: sciq },
};

/**
 * A row of a data set as published, by the parts of an example; as it is where it is in another form, or where the user
 * has said what its columns are.
 * @throws UserError where it has the columns and not what stands in them
 */
export function inParts(row: Row, { id, columns }: Pick<Task, "id" | "columns">): Row {
  const form = Object.hasOwn(forms, id) ? forms[id] : undefined;
  if (!form || columns || !form.columns.every((name) => Object.hasOwn(row.fields, name))) return row;
  try {
    return { ...row, fields: { ...row.fields, ...form.parts(row.fields) } };
  } catch (error) {
    throw new UserError(`${row.where}: ${messageOf(error)}`);
  }
}
