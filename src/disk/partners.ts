/** What a merge leaves as one model has it, and whether that may be. */
import { isOptional } from "../checkpoint/names.js";
import { UserError } from "../errors.js";

/** A tensor of the result that is copied and not merged. */
export interface Unmerged {
  readonly name: string;
  /** Under its family's name. */
  readonly canonical: string;
  readonly why: string;
  /** It is no float: there was nothing to merge. */
  readonly isOther: boolean;
}

/** Names of tensors for a message: the first three. */
export function someOf(names: readonly string[]): string {
  return `${names.slice(0, 3).join(", ")}${names.length > 3 ? " …" : ""}`;
}

/** "1 tensor has", "2 tensors have". */
const counted = (count: number, one: string, more: string): string =>
  count === 1 ? `1 tensor ${one}` : `${count} tensors ${more}`;

/** What of the models' tensors is not in a merge. */
export interface Partners {
  /** How many tensors the result has. */
  readonly total: number;
  readonly kept: readonly Unmerged[];
  /** Canonical names that the result has not, but some input. */
  readonly left: readonly string[];
  /** Canonical names that the model reads, where that is known. */
  readonly reads?: ReadonlyMap<string, unknown> | undefined;
}

/**
 * Checks that every tensor of the backbone is merged from all models. A head, a pooler or a buffer may be one model's.
 * @param first what the model is called whose tensors are the list
 * @returns what is left as it is, a line each
 * @throws UserError naming the first tensors without a partner, unless `allow`
 */
export function checkPartners(
  { total, kept, left, reads }: Partners,
  first: string,
  allow: boolean,
): string[] {
  const isNeeded = (name: string) => !isOptional(name) && (reads?.has(name) ?? true);
  const lacking = kept.filter(({ canonical, isOther }) => !isOther && isNeeded(canonical));
  const extra = left.filter(isNeeded);
  const problems: string[] = [];
  if (lacking.length) {
    const named = someOf(lacking.map(({ name, why }) => `"${name}" (${why})`));
    problems.push(`${lacking.length} of ${total} tensors cannot be merged: ${named}`);
  }
  if (extra.length)
    problems.push(
      `${counted(extra.length, "has", "have")} no partner in ${first}: ${someOf(extra.map((n) => `"${n}"`))}`,
    );
  if (problems.length && !allow)
    throw new UserError(
      `${problems.join("; ")}. A merge of the rest alone would be none of the models: see that they are of ` +
        "one architecture and saved under the same names, or go on with --allow-partial, which leaves those as " +
        `${first} has them`,
    );
  const notes: string[] = [];
  if (kept.length) {
    const named = someOf(kept.map(({ name, why }) => `${name} (${why})`));
    notes.push(`${kept.length} of ${total} tensors are copied unchanged from ${first}: ${named}`);
  }
  if (left.length)
    notes.push(
      `${counted(left.length, "is", "are")} left out, which ${first} does not have: ${someOf(left)}`,
    );
  return notes;
}
