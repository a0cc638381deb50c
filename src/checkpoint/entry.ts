import { UserError } from "../errors.js";
import type { Member } from "./family.js";
import { entryOf } from "./folder.js";
import type { TensorEntry } from "./safetensors.js";

/**
 * The stored name of one of a model's tensors, under its family's name.
 * @throws UserError where the model has none of that name
 */
export function storedName({ actual, checkpoint: { folder }, label }: Member, name: string): string {
  const stored = actual.get(name);
  if (stored === undefined) throw new UserError(`${folder} (${label}): there is no tensor "${name}"`);
  return stored;
}

/** Name and header of one of a model's tensors, under its family's name. @throws UserError where it has none */
export function storedEntry(member: Member, name: string): TensorEntry & { readonly stored: string } {
  const stored = storedName(member, name);
  return { stored, ...entryOf(member.checkpoint, stored) };
}
