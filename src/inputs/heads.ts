import { existsSync } from "node:fs";
import { join } from "node:path";
import { member, type Member } from "../checkpoint/family.js";
import { readJson } from "../checkpoint/files.js";
import { refIn } from "../checkpoint/ref.js";
import { openSafetensors } from "../checkpoint/safetensors.js";
import { UserError } from "../errors.js";

/** A head that `writeHead` wrote, seen as a checkpoint of its own. */
export async function openHead(
  folder: string,
  task: string,
  canonical: (name: string) => string,
): Promise<Member> {
  const place = join(folder, "heads", task);
  const path = join(place, "head.safetensors");
  if (!existsSync(path))
    throw new UserError(`${folder}: it has no head for ${task} (heads/${task}/head.safetensors)`);
  const config = (await readJson(join(place, "config.json"))) as Record<string, unknown>;
  const file = await openSafetensors(path);
  return member(
    task,
    {
      folder: place,
      config,
      files: [],
      names: [...file.entries.keys()],
      entry: (name) => file.entries.get(name),
      ref: (name) => refIn(path, file.entries.get(name)!),
      read: file.read,
      readRange: file.readRange,
      close: file.close,
    },
    canonical,
  );
}
