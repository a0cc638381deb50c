import { Option, type Command } from "commander";
import { z } from "zod";
import { settings } from "../config/settings.js";
import { type Settings } from "../config/schema.js";
import { UsageError, kebab } from "../errors.js";

/** Options as commander hands them over. */
export type Given = Readonly<Record<string, unknown>>;

/** The settings that a help shows first: `--help all` shows the others too. */
const foremost: readonly (keyof typeof settings)[] = [
  "tasks",
  "base",
  "experts",
  "data",
  "out",
  "steps",
  "minutes",
  "valPerTask",
  "loss",
  "memoryBudget",
];

/** Whether the help is asked for everything. */
const wantsAll = (): boolean => /(^|,)(--help|-h),all(,|$)/.test(process.argv.slice(2).join());

/** Gives a command settings of a run as options, with what they are when nobody says. */
export function addSettings(command: Command, left: readonly string[] = []): void {
  if (!wantsAll()) command.addHelpText("after", "\n`--help all` lists every setting, with its default.");
  for (const [key, { argument, help, schema }] of Object.entries(settings)) {
    if (left.includes(key)) continue;
    const isShown = wantsAll() || foremost.some((one) => one === key);
    const fallback = z.union([z.string(), z.number()]).safeParse(schema.safeParse(undefined).data);
    const shown = fallback.success ? ` (default: ${fallback.data})` : "";
    command.addOption(new Option(`--${kebab(key)} ${argument}`.trim(), `${help}${shown}`).hideHelp(!isShown));
  }
}

/** A setting of a run as an option, for a command that takes a few. */
export const settingOption = (key: keyof typeof settings, help: string = settings[key].help): Option =>
  new Option(`--${kebab(key)} ${settings[key].argument}`.trim(), help);

/** An option whose value one of the settings' schemas (config/numbers.ts) checks. */
export function checkedOption(flags: string, help: string, schema: z.ZodType): Option {
  const option = new Option(flags, help);
  return option.argParser((text) => {
    const parsed = schema.safeParse(text);
    if (parsed.success) return parsed.data;
    throw new UsageError(
      `${option.long ?? flags} ${text}: ${parsed.error.issues[0]?.message ?? "not valid"}`,
    );
  });
}

/** Settings that the user gave, but for some. */
export const givenSettings = (
  chosen: Settings,
  isGiven: (key: string) => boolean,
  left: readonly (keyof Settings)[],
): Readonly<Record<string, unknown>> =>
  Object.fromEntries(
    Object.entries(chosen).filter(([key]) => isGiven(key) && !left.some((other) => other === key)),
  );

/** Settings that are none of a method's: where things lie, and what is let through. */
export const whereabouts = [
  "tasks",
  "out",
  "base",
  "experts",
  "family",
  "data",
  "memoryBudget",
  "allowPartial",
  "allowMismatch",
  "strict",
  "overwrite",
  "dequantise",
] as const;

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
}
