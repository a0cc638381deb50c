/** Output layers that are the table of embeddings, and others that are not. */
import { UserError } from "../errors.js";
import { member, type Member } from "./family.js";
import { isInputTable, isOutputLayer, scoresTokens } from "./names.js";

const outputLayerOf = ({ actual }: Member): string | undefined => [...actual.keys()].find(isOutputLayer);

const ties = ({ checkpoint }: Member): unknown => checkpoint.config["tie_word_embeddings"];

/** A tied model stores its output layer by right not at all: a second copy is no tensor of its own. */
function withoutCopy(one: Member): Member {
  const head = outputLayerOf(one);
  if (head === undefined || ties(one) !== true) return one;
  if (![...one.actual.keys()].some(isInputTable)) return one;
  const names = new Map([...one.actual].map(([name, stored]) => [stored, name]));
  const checkpoint = {
    ...one.checkpoint,
    names: one.checkpoint.names.filter((stored) => names.get(stored) !== head),
  };
  return member(one.label, checkpoint, (stored) => names.get(stored) ?? stored);
}

/** A tied model's output layer is its table of embeddings, where another's is a tensor of its own. */
function withTable(one: Member, head: string): Member {
  const [, table] = [...one.actual].find(([name]) => isInputTable(name)) ?? [];
  if (one.actual.has(head) || table === undefined || !scoresTokens(one.checkpoint.config)) return one;
  const names = new Map([...one.actual].map(([name, stored]) => [stored, name]));
  return member(one.label, one.checkpoint, (stored) => names.get(stored) ?? stored, new Map([[head, table]]));
}

/**
 * Models of which some are tied: each gets the output layer that the first has.
 * @throws UserError where the first is tied and another's output layer is its own, which the result cannot hold
 */
export function withOutputLayers(members: readonly Member[], first: Member): Member[] {
  const plain = members.map(withoutCopy);
  const head = outputLayerOf(withoutCopy(first));
  if (head !== undefined) return plain.map((one) => withTable(one, head));
  const untied = scoresTokens(first.checkpoint.config)
    ? plain.find((one) => outputLayerOf(one) !== undefined && ties(one) === false)
    : undefined;
  if (untied)
    throw new UserError(
      `${untied.checkpoint.folder} (${untied.label}): its output layer "${outputLayerOf(untied)}" is its own, ` +
        `that of ${first.checkpoint.folder} is tied to the embeddings, and so would be the result's; untie that ` +
        "model first",
    );
  return plain;
}
