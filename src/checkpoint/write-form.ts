import { at } from "../at.js";
import { UserError } from "../errors.js";
import { inOneSpelling } from "./adapter-places.js";
import { whyFolded, type AdaptedCheckpoint } from "./adapted.js";
import { adapterOf, type Member } from "./family.js";

/**
 * What a merge is written as: a model, or an adapter where all its experts are adapters of one kind
 * (`auto` takes that).
 */
export const writeForms = ["auto", "model", "adapter"] as const;
export type WriteForm = (typeof writeForms)[number];

/**
 * The adapters that all inputs are, where the result is to be one.
 * @param headsApart heads are kept beside the result, each task's own; else a head that the base has is merged with
 *   the rest, in a model
 * @throws UserError where it was asked for and cannot be
 */
export function adapterForm(
  inputs: readonly Member[],
  write: WriteForm,
  headsApart = false,
): readonly AdaptedCheckpoint[] | undefined {
  if (write === "model") return undefined;
  const adapters = inputs.map(adapterOf).filter((one) => one !== undefined);
  const kinds = new Set(adapters.map(({ adapter }) => adapter.kind));
  const wholeIn = ({ replaced, baseHeads }: AdaptedCheckpoint): readonly string[] =>
    headsApart ? replaced : [...replaced, ...baseHeads];
  const whole = adapters.find((one) => wholeIn(one).length > 0);
  const folded = adapters.find(whyFolded);
  if (folded && write === "adapter")
    throw new UserError(
      `--write adapter: ${folded.folder} is ${whyFolded(folded)}, and what several of them make of a weight is no ` +
        "adapter; use --write model",
    );
  if (folded) return undefined;
  if (adapters.length === inputs.length && kinds.size === 1 && !whole) {
    const spelled = inOneSpelling(adapters.map(({ adapted }) => adapted));
    return adapters.map((one, i) => ({ ...one, adapted: at(spelled, i) }));
  }
  if (write === "adapter" && whole)
    throw new UserError(
      `--write adapter: ${whole.folder} holds "${wholeIn(whole)[0]}" whole, which such an ` +
        "adapter cannot express; use --write model",
    );
  if (write === "adapter")
    throw new UserError(
      "--write adapter: the result is an adapter only where every expert is one, all LoRA or " +
        "all (IA)³; use --write model",
    );
  return undefined;
}
