/** One vocabulary for models that have several: the base's, another's, or all tokens together (mergekit's rules). */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { at, lookUp } from "../at.js";
import { UserError } from "../errors.js";
import { elements } from "../tensor/dtype.js";
import { adapterOf, storedEntry, type Member } from "./family.js";
import { readJsonObject } from "./files.js";
import { joinTables, type JointVocabulary, type Speaker, type TokenRule } from "./joint-tables.js";
import { storedTable, tablesOf, withTables, type MovedTable } from "./moved-rows.js";
import { otherTokenizer, type AddedToken, type TokenizerParts } from "./tokenizer-files.js";
import {
  addedTokensIn,
  fastFile,
  refuseOwnTokens,
  shown,
  tokenizerFolder,
  vocabularyIn,
  withOneVocabulary,
  type Vocabulary,
} from "./vocabulary.js";

/** Whose tokens the result has. */
export interface TokenizerChoice {
  /** "base", "union", or the folder of a model. */
  readonly source: string;
  readonly tokens?: Readonly<Record<string, TokenRule>> | undefined;
  /** Tables get a number of rows that this divides. */
  readonly padTo?: number | undefined;
}

const byId = (tokens: Vocabulary): string[] =>
  [...tokens].toSorted(([, a], [, b]) => a - b).map(([token]) => token);

/** The result's tokens and their ids: those of the source, and after them what is added. */
async function joinTokens(
  speakers: readonly Speaker[],
  source: Vocabulary,
  { source: choice, tokens: given = {}, padTo = 1 }: TokenizerChoice,
): Promise<JointVocabulary> {
  const tokens = new Map(source);
  const added: AddedToken[] = [];
  let next = [...source.values()].reduce((most, id) => Math.max(most, id + 1), 0);
  const add = (token: string, like: object = {}): void => {
    if (tokens.has(token)) return;
    const id = next++;
    tokens.set(token, id);
    added.push({ ...like, id, content: token });
  };
  if (choice === "union") {
    const beside: AddedToken[] = [];
    for (const { member } of speakers) beside.push(...(await addedTokensIn(tokenizerFolder(member))));
    const special = new Set(beside.map(({ content }) => content));
    for (const { tokens: own } of speakers)
      byId(own)
        .filter((token) => !special.has(token))
        .forEach((token) => add(token));
    for (const token of beside) add(token.content, token);
  }
  for (const token of Object.keys(given)) add(token);
  return { tokens, added, rows: Math.ceil(next / padTo) * padTo, rules: new Map(Object.entries(given)) };
}

/** What a model's tokens have to do with the result's, a line or none. */
function lineOf({ member, tokens }: Speaker, result: Vocabulary): string[] {
  const lacking = byId(result).filter((token) => !tokens.has(token));
  const more = byId(tokens).filter((token) => !result.has(token));
  const said: string[] = [];
  if (lacking.length)
    said.push(
      `it lacks ${shown(lacking)} of the result's tokens: their rows are the base's, or the mean of the others'`,
    );
  if (more.length) said.push(`${shown(more)} of its tokens are left out`);
  return [said.join("; ")]
    .filter(Boolean)
    .map((text) => `${tokenizerFolder(member)} (${member.label}): ${text}`);
}

/** The models and what each calls tokens, the first of them before the others. */
async function speakersOf(members: readonly Member[], first: Member): Promise<Speaker[]> {
  const ofFirst = await vocabularyIn(tokenizerFolder(first));
  if (!ofFirst)
    throw new UserError(
      `${tokenizerFolder(first)}: it has no list of tokens (tokenizer.json); save its tokenizer as a fast one`,
    );
  const speakers: Speaker[] = [];
  for (const member of [first, ...members.filter((one) => one !== first)]) {
    const adapter = adapterOf(member);
    if (adapter) await refuseOwnTokens(tokenizerFolder(member), adapter);
    speakers.push({ member, tokens: (await vocabularyIn(tokenizerFolder(member))) ?? ofFirst });
  }
  return speakers;
}

/** Whose tokens the result has, and its files where they are another's than the first's. */
interface TokenizerSource {
  readonly tokens: Vocabulary;
  readonly from?: TokenizerParts["from"];
}

/** A folder whose tokenizer the result gets. */
async function readSource(folder: string): Promise<TokenizerSource> {
  const tokens = await vocabularyIn(folder);
  if (!tokens || !existsSync(join(folder, "config.json")))
    throw new UserError(
      `${folder}: it is no folder of a tokenizer that can be taken: it must have a list of tokens (tokenizer.json) ` +
        "and a config.json",
    );
  return { tokens, from: { folder, config: await readJsonObject(join(folder, "config.json")) } };
}

/**
 * Gives models one vocabulary: of every table, each model gets its own rows where the result has the token; where it
 * lacks one, the row of the base or of the only model that has it, else the mean of those that have it, else 0; what
 * a rule says comes before that. Rows beyond the tokens are the mean of the others (as in mergekit 0.1.5).
 * @param first the model whose config the result gets
 * @param choice.hasBase whether that is the base
 * @throws UserError where a tokenizer or a row that is named is not there
 */
export async function withJointVocabulary(
  members: readonly Member[],
  first: Member,
  { hasBase, ...choice }: TokenizerChoice & { readonly hasBase: boolean },
): Promise<{ readonly members: readonly Member[]; readonly notes: readonly string[] }> {
  const { source: wanted, tokens: given = {}, padTo } = choice;
  const own = { folder: tokenizerFolder(first), config: first.checkpoint.config };
  const isOwn = wanted === "base" || resolve(wanted) === resolve(own.folder);
  const isPlain = isOwn && padTo === undefined && Object.keys(given).length === 0;
  // Nobody lists tokens: there is nothing to compare, and nothing to do.
  if (isPlain && !(await vocabularyIn(tokenizerFolder(first))))
    return withOneVocabulary(members, first, "base");
  const speakers = await speakersOf(members, first);
  let source: TokenizerSource = { tokens: at(speakers, 0).tokens };
  if (!isOwn && wanted !== "union") source = await readSource(wanted);
  const vocabulary = await joinTokens(speakers, source.tokens, choice);
  const { folder } = source.from ?? own;
  if (vocabulary.added.length && !existsSync(join(folder, fastFile)))
    throw new UserError(
      `${folder}: tokens cannot be added: it has no ${fastFile}; save its tokenizer as a fast one`,
    );
  const tables = speakers.map(() => new Map<string, MovedTable>());
  for (const name of tablesOf(first)) {
    const entries = speakers.map(({ member }) => storedEntry(member, name));
    const [{ shape }] = [at(entries, 0)];
    const unlike = entries.findIndex((entry) => entry.shape.slice(1).join() !== shape.slice(1).join());
    if (unlike > 0)
      throw new UserError(
        `${at(speakers, unlike).member.checkpoint.folder}: "${name}" is not as wide as in ${own.folder}`,
      );
    const width = elements(shape) / at(shape, 0);
    const stored = speakers.map(({ member }, i) => storedTable(member.checkpoint, at(entries, i).stored));
    const made = await joinTables({ speakers, tables: stored, vocabulary, hasBase, width });
    for (const [i, table] of made.entries())
      at(tables, i).set(name, {
        ...table,
        shape: [vocabulary.rows, ...shape.slice(1)],
        stored: at(entries, i).stored,
      });
  }
  const tokenizer = otherTokenizer({
    own,
    from: source.from,
    added: vocabulary.added,
    rows: vocabulary.rows,
  });
  const joined = new Map(
    speakers.map(({ member }, i) => {
      const one = withTables(member, at(tables, i));
      return [member, { ...one, checkpoint: { ...one.checkpoint, tokenizer } }];
    }),
  );
  return {
    members: members.map((one) => lookUp(joined, one)),
    notes: speakers.flatMap((one) => lineOf(one, vocabulary.tokens)),
  };
}
