/** Models that are merged by their folders alone: opened, and seen under names that they share. */
import { at } from "../at.js";
import { isAdapter } from "../checkpoint/adapter.js";
import { member, openExpert, openMember, type Member } from "../checkpoint/family.js";
import { UserError } from "../errors.js";
import { Resources } from "../inputs/resources.js";

export interface NamedFolder {
  readonly label: string;
  readonly folder: string;
  /** The model that an adapter was trained on. */
  readonly on?: string | undefined;
}

const sameName = (name: string): string => name;

/** How a model's family calls its tensors; of an architecture that we do not know, as the file does. */
async function canonicalOf({ checkpoint }: Member): Promise<(name: string) => string> {
  // Only here: it brings the engine's library with it.
  const { familyOfType } = await import("../models/index.js");
  return familyOfType(checkpoint.config["model_type"])?.canonical ?? sameName;
}

async function translated(one: Member): Promise<Member> {
  return member(one.label, one.checkpoint, await canonicalOf(one));
}

/** Models as they call their own tensors, where they all do so alike; else under their families' names. */
async function alike(members: readonly Member[]): Promise<Member[]> {
  const first = new Set(at(members, 0).checkpoint.names);
  const hasSame = ({ checkpoint: { names } }: Member) =>
    names.length === first.size && names.every((name) => first.has(name));
  if (members.every(hasSame)) return [...members];
  return Promise.all(members.map(translated));
}

/** Opens a model, or an adapter on its base. */
async function openOne({ label, folder, on }: NamedFolder, resources: Resources): Promise<Member> {
  const open = async (name: string, path: string) => {
    const opened = await openMember(name, path, sameName);
    resources.add(() => opened.checkpoint.close());
    return opened;
  };
  if (!isAdapter(folder)) return open(label, folder);
  if (on === undefined)
    throw new UserError(`${folder}: it is an adapter: name the model that it was trained on with --base`);
  // Opened under a name of its own: an adapter closes its own file alone.
  const base = await open("base", on);
  const expert = await openExpert(label, folder, base, await canonicalOf(base));
  resources.add(() => expert.checkpoint.close());
  // Under the base's own names, as the base is.
  return member(label, expert.checkpoint, sameName);
}

/** Opens folders for as long as `run` takes. */
export async function withMembers<T>(
  folders: readonly NamedFolder[],
  run: (members: readonly Member[]) => Promise<T>,
): Promise<T> {
  const resources = new Resources();
  try {
    const members: Member[] = [];
    for (const folder of folders) members.push(await openOne(folder, resources));
    return await run(await alike(members));
  } finally {
    await resources.close();
  }
}
