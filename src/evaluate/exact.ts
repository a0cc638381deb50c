/**
 * A text as SQuAD compares answers (Rajpurkar et al. 2016): lower case, without punctuation, articles
 * and spaces more than one.
 */
export const normalised = (text: string): string =>
  text
    .toLowerCase()
    .replace(/[!-/:-@[-`{-~]/g, "")
    .replace(/(?<![\p{L}\p{N}_])(?:a|an|the)(?![\p{L}\p{N}_])/gu, " ")
    .trim()
    .split(/\s+/)
    .join(" ");

/** Whether what was said is one of the right answers, word for word. */
export const isExact = (said: string, answers: readonly string[]): boolean =>
  answers.some((answer) => normalised(answer) === normalised(said));
