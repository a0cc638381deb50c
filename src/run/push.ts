/** A finished result on the hub: what of its folder a reader needs, and nothing that only this machine needs. */
import { readdir } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { UserError } from "../errors.js";
import { isFinished } from "../folder/output.js";
import { pushFolder, type Pushed, type PushOptions } from "../hub/push.js";
import type { HubHooks } from "../hub/hub.js";

/** What a run needs to go on or to be looked at here: it names places of this machine, or is of no use elsewhere. */
const stays = /^(run|merge|state|node|tree|compare|finetune|reproduce|plan)\.json$|^training\.jsonl$|\.tmp$/;
const foldersStay = /^(nodes|methods|models|treated|products|\..*)$/;

/** The files of a result that go to the hub, with slashes. */
async function filesToPush(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep))
    .filter((parts) => !parts.slice(0, -1).some((part) => foldersStay.test(part)))
    .filter((parts) => !stays.test(parts.at(-1) ?? ""))
    .map((parts) => parts.join("/"))
    .sort();
}

/** Uploads a finished result. @throws UserError where it is none */
export async function pushResult(folder: string, options: PushOptions, hooks: HubHooks): Promise<Pushed> {
  if (!(await isFinished(folder)))
    throw new UserError(`${folder}: it holds no finished result of train-merge; there is nothing to push`);
  return pushFolder(folder, await filesToPush(folder), options, hooks);
}
