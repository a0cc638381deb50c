/** Models that are merged by their folders alone: opened, and seen under names that they share. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { at, lookUp } from "../at.js";
import { member, openExpert, openMember, type Member, type OpenOptions } from "../checkpoint/family.js";
import { type Checkpoint, isAdapter } from "../checkpoint/folder.js";
import { withExpertsAlike } from "../checkpoint/experts.js";
import { zip } from "../methods/inputs.js";
import { namesAs } from "../checkpoint/names.js";
import { watchFiles, Resources } from "../checkpoint/files.js";
import { withJointVocabulary, type TokenizerChoice } from "../checkpoint/joint-vocabulary.js";
import { withOneVocabulary } from "../checkpoint/vocabulary.js";
import { withOutputLayers } from "../checkpoint/tied.js";
import type { ReadFiles } from "../disk/hashes.js";
import { UserError } from "../errors.js";

export interface NamedFolder {
  readonly label: string;
  readonly folder: string;
  /** The model that an adapter was trained on. */
  readonly on?: string | undefined;
}

const sameName = (name: string): string => name;

/** Models under the names of one of them, which keeps its own. */
async function underOneNames(opened: readonly Member[], reference: number): Promise<Member[]> {
  const checkpoints = withExpertsAlike(opened.map(({ checkpoint }) => checkpoint));
  const members = zip(opened, checkpoints).map(([one, checkpoint]) => ({ ...one, checkpoint }));
  const own = at(members, reference);
  const first = member(own.label, own.checkpoint, sameName);
  const renamed = members.map((one) => {
    if (one === own) return first;
    const names = namesAs(first.checkpoint, one.checkpoint);
    return member(one.label, one.checkpoint, (name) => lookUp(names, name));
  });
  return withOutputLayers(renamed, reference);
}

/** Folders that are being opened. */
interface FolderReading {
  readonly resources: Resources;
  /** What is read: for a check that it did not change. */
  readonly read: Checkpoint[];
  readonly opening: OpenOptions;
}

/** Opens a model, or an adapter on its base. */
async function openOne(
  { label, folder, on }: NamedFolder,
  { resources, read, opening }: FolderReading,
): Promise<Member> {
  const open = async (name: string, path: string) => {
    const opened = await openMember(name, path, sameName, opening);
    resources.add(() => opened.checkpoint.close());
    return opened;
  };
  if (!isAdapter(folder)) {
    const opened = await open(label, folder);
    read.push(opened.checkpoint);
    return opened;
  }
  if (on === undefined)
    throw new UserError(`${folder}: it is an adapter: name the model that it was trained on with --base`);
  // Opened under a name of its own: an adapter closes its own file alone.
  const base = await open("base", on);
  const expert = await openExpert({ label, folder }, base, sameName);
  resources.add(() => expert.checkpoint.close());
  read.push(base.checkpoint, expert.checkpoint);
  return expert;
}

interface MembersOptions extends OpenOptions {
  readonly reference: number;
  /** Whether the reference is the base (default: it is). */
  readonly hasBase?: boolean | undefined;
  /** What is done where vocabularies are unlike; else they are refused. "base": the reference's is kept. */
  readonly tokenizer?: "base" | TokenizerChoice | undefined;
}

/** Models with one vocabulary. */
function withVocabulary(
  members: readonly Member[],
  { reference, hasBase = true, tokenizer }: MembersOptions,
): ReturnType<typeof withOneVocabulary> {
  const first = at(members, reference);
  if (typeof tokenizer === "object") return withJointVocabulary(members, first, { ...tokenizer, hasBase });
  return withOneVocabulary(members, first, tokenizer);
}

/** The files by which a folder's tokens are known. */
const wordsIn = (folder: string): string[] =>
  ["tokenizer.json", "tokenizer_config.json"].filter((file) => existsSync(join(folder, file)));

/**
 * Opens folders for as long as `run` takes.
 * @param opening.reference the one whose names all get
 * @param run is given the files as well, and what was done to tokens
 */
export async function withMembers<T>(
  folders: readonly NamedFolder[],
  opening: MembersOptions,
  run: (members: readonly Member[], files: ReadFiles, notes: readonly string[]) => Promise<T>,
): Promise<T> {
  const resources = new Resources();
  try {
    const members: Member[] = [];
    const read: Checkpoint[] = [];
    for (const folder of folders) members.push(await openOne(folder, { resources, read, opening }));
    const alike = await withVocabulary(await underOneNames(members, opening.reference), opening);
    const check = await watchFiles(read);
    const hashed = read.map(({ folder, files }) => ({ folder, files: [...files, ...wordsIn(folder)] }));
    return await run(alike.members, { check, read: hashed }, alike.notes);
  } finally {
    await resources.close();
  }
}
