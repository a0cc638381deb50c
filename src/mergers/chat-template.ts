/** The chat template that a mergekit file asks for. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { editJson, isRecord, readJsonObject, readTextFile, writeText } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { chatTemplates } from "../mergekit/chat-templates.js";
import { nearest } from "../nearest.js";

const templateFile = "chat_template.jinja";
const configFile = "tokenizer_config.json";

/** A folder's own template, as transformers finds it; undefined where it has none. */
async function templateIn(folder: string): Promise<string | undefined> {
  if (existsSync(join(folder, templateFile))) return (await readTextFile(join(folder, templateFile))).trim();
  if (!existsSync(join(folder, configFile))) return undefined;
  const { chat_template: own } = await readJsonObject(join(folder, configFile));
  const several = [own].flat().filter(isRecord);
  const main = several.find(({ name }) => name === "default")?.["template"];
  return [own, main].find((text) => typeof text === "string")?.trim();
}

/** What most folders have; of as many the first. */
async function commonest(folders: readonly string[]): Promise<string | undefined> {
  const counts = new Map<string, number>();
  for (const folder of folders) {
    const template = await templateIn(folder);
    if (template) counts.set(template, (counts.get(template) ?? 0) + 1);
  }
  const most = Math.max(...counts.values());
  return [...counts].find(([, count]) => count === most)?.[0];
}

/**
 * What `chat_template` means (mergekit 0.1.5): "auto" is what most of the models have, a name one of ours, anything
 * else a template.
 * @param folders the models', in the file's order
 * @returns undefined where the result's tokenizer stays as it is
 * @throws UserError where it is neither a name nor a template
 */
export async function chatTemplateOf(
  asked: string | null | undefined,
  folders: readonly string[],
  where: string,
): Promise<string | undefined> {
  if (!asked) return undefined;
  if (asked === "auto") return commonest(folders);
  const named = chatTemplates.get(asked);
  if (named !== undefined) return named;
  if (asked.length >= 20 && asked.includes("{")) return asked;
  throw new UserError(
    `${where}: chat_template ${asked} is no template${nearest(asked, chatTemplates.keys())}; it must be auto, ` +
      `${[...chatTemplates.keys()].join(", ")}, or a template`,
  );
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

/** Whether a model's folder has a tokenizer, which a template belongs to. */
export const hasTokenizer = (folder: string): boolean =>
  [configFile, "tokenizer.json"].some((file) => existsSync(join(folder, file)));
