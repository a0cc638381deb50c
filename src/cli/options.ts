import { Option, type Command } from "commander";
import { kebab, settings } from "../config/settings.js";

/** Gives a command every setting of a run as an option. */
export function addSettings(command: Command, left: readonly string[] = []): void {
  for (const [key, { argument, help, schema }] of Object.entries(settings)) {
    if (left.includes(key)) continue;
    const fallback = schema.safeParse(undefined).data as string | number | undefined;
    command.addOption(new Option(`--${kebab(key)} ${argument}`, fallback === undefined ? help : `${help} (default: ${fallback})`));
  }
}
