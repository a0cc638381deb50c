import { existsSync } from "node:fs";
import { member, type Member } from "../checkpoint/family.js";
import { refIn } from "../checkpoint/ref.js";
import { openSafetensors } from "../checkpoint/safetensors.js";
import { lookUp } from "../at.js";
import { UserError } from "../errors.js";
import { headFolder, headPath } from "../folder/files.js";
import { readModelConfig } from "./prepare.js";

/** A head that `writeHead` wrote, seen as a checkpoint of its own. */
export async function openHead(
  folder: string,
  task: string,
  canonical: (name: string) => string,
): Promise<Member> {
  const path = headPath(folder, task);
  if (!existsSync(path))
    throw new UserError(`${folder}: it has no head for ${task} (heads/${task}/head.safetensors)`);
  const own = headFolder(folder, task);
  const config = await readModelConfig(own);
  const file = await openSafetensors(path);
  return member(
    task,
    {
      folder: own,
      config,
      files: [],
      names: [...file.entries.keys()],
      entry: (name) => file.entries.get(name),
      ref: (name) => refIn(path, lookUp(file.entries, name)),
      read: file.read,
      readRange: file.readRange,
      close: file.close,
    },
    canonical,
  );
}
