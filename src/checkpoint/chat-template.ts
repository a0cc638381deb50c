/** The chat template of a model's folder: Jinja that puts a conversation into words (transformers). */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { editJson, isRecord, readJsonObject, readTextFile, writeText } from "./files.js";

const templateFile = "chat_template.jinja";
const configFile = "tokenizer_config.json";

/** A folder's own template, as transformers finds it; undefined where it has none. */
export async function templateIn(folder: string): Promise<string | undefined> {
  if (existsSync(join(folder, templateFile))) return (await readTextFile(join(folder, templateFile))).trim();
  if (!existsSync(join(folder, configFile))) return undefined;
  const { chat_template: own } = await readJsonObject(join(folder, configFile));
  const several = [own].flat().filter(isRecord);
  const main = several.find(({ name }) => name === "default")?.["template"];
  return [own, main].find((text) => typeof text === "string")?.trim();
}

/** Gives a finished folder's tokenizer a template: in a file of its own, and where older transformers look for it. */
export async function writeChatTemplate(out: string, template: string): Promise<void> {
  const config = join(out, configFile);
  if (existsSync(config)) {
    const edited = editJson(await readFile(config, "utf8"), (own) => ({ ...own, chat_template: template }));
    await writeText(config, edited);
  }
  await writeText(join(out, templateFile), template);
}

/** Gives a finished folder the template that it was made with, where it has not got that from its base. */
export async function keepChatTemplate(out: string, template: string | undefined): Promise<void> {
  if (template !== undefined && (await templateIn(out)) !== template) await writeChatTemplate(out, template);
}

/** Whether a model's folder has a tokenizer, which a template belongs to. */
export const hasTokenizer = (folder: string): boolean =>
  [configFile, "tokenizer.json"].some((file) => existsSync(join(folder, file)));

const textOf = (token: unknown): unknown => (isRecord(token) ? token["content"] : token);

/** The tokens that templates may name: `bos_token`, `eos_token` and others, as a folder's files have them. */
export async function namedTokens(folder: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const file of ["special_tokens_map.json", configFile]) {
    const path = join(folder, file);
    if (!existsSync(path)) continue;
    for (const [name, token] of Object.entries(await readJsonObject(path))) {
      const text = textOf(token);
      if (name.endsWith("_token") && typeof text === "string") found[name] = text;
    }
  }
  return found;
}
