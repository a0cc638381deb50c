/** What the models of a merge say of themselves on their own cards: where they are on the hub, licence, language. */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { parse } from "yaml";
import { readTextFile } from "../checkpoint/files.js";
import { isRecord } from "../checkpoint/files.js";
import { idOfSnapshot } from "../hub/hub.js";
import type { Lineage } from "../report/metadata.js";

/** A model by what it is called in a merge, and where it lies. */
export interface LineageFolder {
  readonly label: string;
  readonly folder: string;
}

/** The metadata on top of a folder's README.md; nothing where it has none, or none that can be read. */
async function metadataIn(folder: string): Promise<Readonly<Record<string, unknown>>> {
  const path = join(folder, "README.md");
  if (!existsSync(path)) return {};
  const [, text] = /^---\r?\n([^]*?)\r?\n---/.exec(await readTextFile(path).catch(() => "")) ?? [];
  if (text === undefined) return {};
  try {
    const parsed: unknown = parse(text, { maxAliasCount: 0 });
    return isRecord(parsed) ? parsed : {};
  } catch {
    return {};
  }
}

/** A name, or those of a list. */
const textsIn = (value: unknown): string[] =>
  [value].flat().filter((one): one is string => typeof one === "string" && one.length < 200);

const distinctOf = (names: readonly string[]): string[] => [...new Set(names)];

/** The model's id on the hub, without its commit; undefined where it did not come from there. */
const idOf = (folder: string): string | undefined => idOfSnapshot(resolve(folder))?.split("@")[0];

/** What the models of a merge, its base first, say of themselves. */
export async function lineageOf(models: readonly LineageFolder[]): Promise<Lineage> {
  const each: { label: string; id: string | undefined; metadata: Readonly<Record<string, unknown>> }[] = [];
  for (const { label, folder } of models)
    each.push({ label, id: idOf(folder), metadata: await metadataIn(folder) });
  const all = (key: string) => distinctOf(each.flatMap(({ metadata }) => textsIn(metadata[key])));
  return {
    models: distinctOf(each.flatMap(({ id }) => (id === undefined ? [] : [id]))),
    licences: each.flatMap(({ label, metadata }) =>
      textsIn(metadata["license"]).map((licence) => ({ label, licence })),
    ),
    languages: all("language"),
    datasets: all("datasets"),
  };
}
