/** Output layers that are the table of embeddings, and others that are not. */
import { at, lookUp } from "../at.js";
import { UserError } from "../errors.js";
import { dtypeBytes, elements } from "../tensor/dtype.js";
import { member, type Member } from "./family.js";
import { entryOf } from "./folder.js";
import { isInputTable, isOutputLayer, isTableCopy, scoresTokens } from "./names.js";

const outputLayerIn = ({ actual }: Member): string | undefined => [...actual.keys()].find(isOutputLayer);

const ties = ({ checkpoint }: Member): unknown => checkpoint.config["tie_word_embeddings"];

/** A model's stored names → its canonical ones. */
const canonicalOf = ({ actual }: Member): ((stored: string) => string) => {
  const names = new Map([...actual].map(([name, stored]) => [stored, name]));
  return (stored) => names.get(stored) ?? stored;
};

const comparedBytes = 1 << 22;

/** Whether two tensors of a model are the same, byte for byte. Held: a piece of each. */
async function areSame({ checkpoint }: Member, one: string, other: string): Promise<boolean> {
  const [a, b] = [entryOf(checkpoint, one), entryOf(checkpoint, other)];
  if (a.dtype !== b.dtype || a.shape.join() !== b.shape.join()) return false;
  const size = elements(a.shape) * dtypeBytes[a.dtype];
  for (let from = 0; from < size; from += comparedBytes) {
    const length = Math.min(comparedBytes, size - from);
    const [x, y] = [
      await checkpoint.readRange(one, from, length),
      await checkpoint.readRange(other, from, length),
    ];
    if (Buffer.compare(x, y) !== 0) return false;
  }
  return true;
}

/**
 * A tied model stores its output layer by right not at all: a second copy is no tensor of its own. One that differs is:
 * transformers 5 writes "tied" of every T5, and ties no two tensors that differ in the file.
 */
async function withoutCopy(one: Member): Promise<Member> {
  const head = outputLayerIn(one);
  const [, table] = [...one.actual].find(([name]) => isInputTable(name)) ?? [];
  if (head === undefined || table === undefined || ties(one) !== true) return one;
  if (!(await areSame(one, lookUp(one.actual, head), table))) return one;
  const canonical = canonicalOf(one);
  const names = one.checkpoint.names.filter((stored) => canonical(stored) !== head);
  return member(one.label, { ...one.checkpoint, names }, canonical);
}

/**
 * Models without second copies of their table of embeddings: tensors that a forward does not read, because it takes
 * the table. A merge would leave them behind as they were in the base, and transformers would read them.
 * @param isRead whether the forward reads a tensor, by its canonical name
 * @throws UserError where one differs from the table
 */
export async function withoutTableCopies(
  members: readonly Member[],
  isRead: (name: string) => boolean,
): Promise<Member[]> {
  const plain: Member[] = [];
  for (const one of members) {
    const copies = [...one.actual].filter(([name]) => isTableCopy(name) && !isRead(name));
    const [, table] = [...one.actual].find(([name]) => isInputTable(name) && isRead(name)) ?? [];
    if (copies.length === 0 || table === undefined) {
      plain.push(one);
      continue;
    }
    for (const [, stored] of copies)
      if (!(await areSame(one, stored, table)))
        throw new UserError(
          `${one.checkpoint.folder} (${one.label}): "${stored}" differs from "${table}", and its config.json ` +
            "says that they are one; write it with the tie_word_embeddings that it has",
        );
    const dropped = new Set(copies.map(([, stored]) => stored));
    const names = one.checkpoint.names.filter((stored) => !dropped.has(stored));
    plain.push(member(one.label, { ...one.checkpoint, names }, canonicalOf(one)));
  }
  return plain;
}

/** A tied model's output layer is its table of embeddings, where another's is a tensor of its own. */
function withTable(one: Member, head: string): Member {
  const [, table] = [...one.actual].find(([name]) => isInputTable(name)) ?? [];
  if (one.actual.has(head) || table === undefined || !scoresTokens(one.checkpoint.config)) return one;
  return member(one.label, one.checkpoint, canonicalOf(one), new Map([[head, table]]));
}

/**
 * Models of which some are tied: each gets the output layer that the first has.
 * @param reference which of them the first is
 * @throws UserError where the first is tied and another's output layer is its own, which the result cannot hold
 */
export async function withOutputLayers(members: readonly Member[], reference: number): Promise<Member[]> {
  const plain = await Promise.all(members.map(withoutCopy));
  const first = at(plain, reference);
  const head = outputLayerIn(first);
  if (head !== undefined) return plain.map((one) => withTable(one, head));
  if (!scoresTokens(first.checkpoint.config)) return plain;
  const untied = plain.find((one) => outputLayerIn(one) !== undefined && ties(one) !== undefined);
  if (untied)
    throw new UserError(
      `${untied.checkpoint.folder} (${untied.label}): its output layer "${outputLayerIn(untied)}" is its own, ` +
        `that of ${first.checkpoint.folder} is tied to the embeddings, and so would be the result's; untie that ` +
        "model first",
    );
  return plain;
}
