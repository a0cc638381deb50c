/** The chat template that a mergekit file asks for. */
import { templateIn } from "../checkpoint/chat-template.js";
import { UserError } from "../errors.js";
import { chatTemplates } from "../tasks/chat-templates.js";
import { nearest } from "../nearest.js";

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
