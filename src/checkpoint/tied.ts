/** Output layers that are the table of embeddings, and others that are not. */
import { UserError } from "../errors.js";
import { member, type Member } from "./family.js";
import { isInputTable, isOutputLayer, scoresTokens } from "./names.js";

const outputLayerIn = ({ actual }: Member): string | undefined => [...actual.keys()].find(isOutputLayer);

const ties = ({ checkpoint }: Member): unknown => checkpoint.config["tie_word_embeddings"];

/** A model's stored names → its canonical ones. */
const canonicalOf = ({ actual }: Member): ((stored: string) => string) => {
  const names = new Map([...actual].map(([name, stored]) => [stored, name]));
  return (stored) => names.get(stored) ?? stored;
};

/** A tied model stores its output layer by right not at all: a second copy is no tensor of its own. */
function withoutCopy(one: Member): Member {
  const head = outputLayerIn(one);
  if (head === undefined || ties(one) !== true || ![...one.actual.keys()].some(isInputTable)) return one;
  const canonical = canonicalOf(one);
  const names = one.checkpoint.names.filter((stored) => canonical(stored) !== head);
  return member(one.label, { ...one.checkpoint, names }, canonical);
}

/** A tied model's output layer is its table of embeddings, where another's is a tensor of its own. */
function withTable(one: Member, head: string): Member {
  const [, table] = [...one.actual].find(([name]) => isInputTable(name)) ?? [];
  if (one.actual.has(head) || table === undefined || !scoresTokens(one.checkpoint.config)) return one;
  return member(one.label, one.checkpoint, canonicalOf(one), new Map([[head, table]]));
}

/**
 * Models of which some are tied: each gets the output layer that the first has.
 * @throws UserError where the first is tied and another's output layer is its own, which the result cannot hold
 */
export function withOutputLayers(members: readonly Member[], first: Member): Member[] {
  const plain = members.map(withoutCopy);
  const head = outputLayerIn(withoutCopy(first));
  if (head !== undefined) return plain.map((one) => withTable(one, head));
  if (!scoresTokens(first.checkpoint.config)) return plain;
  const untied = plain.find((one) => outputLayerIn(one) !== undefined && ties(one) === false);
  if (untied)
    throw new UserError(
      `${untied.checkpoint.folder} (${untied.label}): its output layer "${outputLayerIn(untied)}" is its own, ` +
        `that of ${first.checkpoint.folder} is tied to the embeddings, and so would be the result's; untie that ` +
        "model first",
    );
  return plain;
}
