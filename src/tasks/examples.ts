import type { Picture } from "./pixels.js";
import { at } from "../at.js";
import type { ChatMessage } from "./chat.js";
import type { Row } from "./columns.js";

interface ExampleBase {
  /** One text, or a text and its partner; for a choice, one pair an ending; of a picture, none. */
  readonly texts: readonly (readonly [string] | readonly [string, string])[];
  /** The right class or ending, or the right number; 0 where there is none. */
  readonly label: number;
}

interface TextExample extends ExampleBase {
  readonly kind: "text";
  /** The row as the file has it, for prompt templates. */
  readonly fields: Row["fields"];
}

/** A text that is to be said. */
interface GenerateExample extends ExampleBase {
  readonly kind: "generate";
  /** Each of them is right; none where nobody says what is. */
  readonly answers: readonly string[];
  readonly fields: Row["fields"];
}

/** A conversation: what the assistant says in it is learned, and its last turn is asked for. */
interface ChatExample extends ExampleBase {
  readonly kind: "chat";
  readonly messages: readonly ChatMessage[];
  /** What the row says of tools, for the template. */
  readonly tools: unknown;
}

interface ImageExample extends ExampleBase {
  readonly kind: "image";
  /** Read and unpacked when it is asked for. */
  picture(): Picture;
}

/** A text of which several labels may hold. */
interface MarkExample extends ExampleBase {
  readonly kind: "mark";
  /** Of every label, 1 where it holds. */
  readonly marks: readonly number[];
}

/** A text by its words, each of a class. */
interface TagExample extends ExampleBase {
  readonly kind: "tag";
  readonly words: readonly string[];
  /** A class a word; −1 where it has none. */
  readonly tags: readonly number[];
}

/** A question, and the parts of a text that answer it. */
interface SpanExample extends ExampleBase {
  readonly kind: "span";
  readonly question: string;
  readonly context: string;
  /** Each is right; none where the text does not answer. */
  readonly answers: readonly SpanAnswer[];
}

/** A part of a text, and where it begins (in UTF-16 units, as JavaScript counts). */
export interface SpanAnswer {
  readonly text: string;
  readonly start: number;
}

/** One labelled example. */
export type Example =
  | TextExample
  | ChatExample
  | GenerateExample
  | ImageExample
  | MarkExample
  | TagExample
  | SpanExample;

/** An example whose classes are numbered as a model has them. @param order the model's number of each class */
export function renumbered(example: Example, order: readonly number[]): Example {
  if (example.kind === "tag")
    return { ...example, tags: example.tags.map((tag) => (tag < 0 ? tag : at(order, tag))) };
  if (example.kind === "mark") {
    const marks = example.marks.map(() => 0);
    for (const [label, mark] of example.marks.entries()) marks[at(order, label)] = mark;
    return { ...example, marks };
  }
  return { ...example, label: at(order, example.label) };
}

/** An example's picture, unpacked. @throws Error where it is none of an image task */
export function pictureOf(example: Example): Picture {
  if (example.kind !== "image") throw new Error("an example of texts has no picture");
  return example.picture();
}
