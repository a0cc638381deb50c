/** What a teacher is asked of a language model's predictions, or has said of them (models/distil.ts). */
import { spansOf } from "./ops.js";

/** How a divergence is taken: of the student from the teacher (forward), or of the teacher from the student. */
export type Divergence = "forward" | "reverse";

/** What teacher and student are softened and compared by. */
export interface Comparison {
  readonly temperature: number;
  readonly divergence: Divergence;
}

/** A teacher's distributions, a row a prediction. */
export interface Teacher {
  /** Its likeliest tokens, [predictions, count]. */
  readonly ids: Int32Array;
  /** Their log-probabilities. */
  readonly logP: Float32Array;
  /** The log-probability of all others together, [predictions]; far below 0 where there are none. */
  readonly rest: Float32Array;
}

/** What is asked of a teacher: how many tokens of a prediction, at what temperature. */
export interface Asked {
  readonly count: number;
  readonly temperature: number;
}

/** What a teacher is asked of some predictions, or has said of them. */
export type Lesson =
  | { readonly asked: Asked; readonly teacher?: undefined }
  | (Comparison & { readonly teacher: Teacher });

/** A lesson of several parts' predictions, one after the other: what each has of it. */
export function lessonParts(lesson: Lesson, sizes: readonly number[]): Lesson[] {
  const { teacher } = lesson;
  if (!teacher) return sizes.map(() => lesson);
  const each = teacher.ids.length / teacher.rest.length;
  return spansOf(sizes).map(({ start, size }) => ({
    ...lesson,
    teacher: {
      ids: teacher.ids.subarray(start * each, (start + size) * each),
      logP: teacher.logP.subarray(start * each, (start + size) * each),
      rest: teacher.rest.subarray(start, start + size),
    },
  }));
}

/** Several lessons as one, of all their predictions. Each of a batch is of one kind. */
export function joinedLesson(lessons: readonly Lesson[]): Lesson | undefined {
  const [first] = lessons;
  if (!first?.teacher) return first;
  const teachers = lessons.flatMap(({ teacher }) => teacher ?? []);
  const floats = (lists: readonly Float32Array[]) => Float32Array.from(lists.flatMap((list) => [...list]));
  return {
    ...first,
    teacher: {
      ids: Int32Array.from(teachers.flatMap(({ ids }) => [...ids])),
      logP: floats(teachers.map(({ logP }) => logP)),
      rest: floats(teachers.map(({ rest }) => rest)),
    },
  };
}

/** The tokens of a batch that predict a language model's targets, row after row. */
export interface Predictions {
  /** Which of the batch's tokens predicts a target. */
  readonly tokens: Int32Array;
  readonly targets: Int32Array;
  /** [rows, predictions]: what a prediction counts for in its row's score, 0 in every other. */
  readonly owners: Float32Array;
  readonly rows: number;
  /** What the scores of all tokens are capped at (softcap.ts). */
  readonly cap: number | undefined;
  /** What a teacher is asked of them, or has said. */
  readonly lesson: Lesson | undefined;
}
