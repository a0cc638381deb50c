import { Option, type Command } from "commander";
import { UserError } from "../errors.js";
import { settings } from "../config/settings.js";
import { kebab } from "../spelling.js";

/** Gives a command every setting of a run as an option. */
export function addSettings(command: Command, left: readonly string[] = []): void {
  for (const [key, { argument, help, schema }] of Object.entries(settings)) {
    if (left.includes(key)) continue;
    const fallback = schema.safeParse(undefined).data as string | number | undefined;
    command.addOption(
      new Option(
        `--${kebab(key)} ${argument}`,
        fallback === undefined ? help : `${help} (default: ${fallback})`,
      ),
    );
  }
}

/** A positive number out of an option. */
export function positive(name: string, text: string, whole: boolean): number {
  const value = Number(text);
  if (!(value > 0) || !Number.isFinite(value) || (whole && !Number.isSafeInteger(value)))
    throw new UserError(`--${name} ${text}: it must be a ${whole ? "whole " : ""}number above 0`);
  return value;
}

/** A whole number from 0 on out of an option. */
export function wholeFromZero(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0)
    throw new UserError(`--${name} ${text}: it must be a whole number from 0 on`);
  return value;
}
