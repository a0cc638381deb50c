import { nearest } from "../nearest.js";
import { UserError, kebab } from "../errors.js";
import { acceptedParameters } from "./pipeline.js";
import type { Method, Parameter, ParameterValues } from "./types.js";

/** A number that was written as text; anything else is itself. */
export function readNumber(given: unknown): unknown {
  if (typeof given === "string" && given.trim() !== "") return Number(given);
  return given;
}

function numberOf(
  where: string,
  given: unknown,
  { least = -Infinity, most = Infinity }: { least?: number; most?: number },
): number {
  const value = readNumber(given);
  if (typeof value !== "number" || !Number.isFinite(value))
    throw new UserError(`${where} ${JSON.stringify(given)}: it must be a number`);
  if (value < least || value > most)
    throw new UserError(
      `${where} ${value}: it must be ${most === Infinity ? `${least} or more` : `from ${least} to ${most}`}`,
    );
  return value;
}

function rangeText(least: number, most: number): string {
  if (least === most) return `exactly ${least}`;
  return most === Infinity ? `at least ${least}` : `${least} to ${most}`;
}

/** "0.1,0.2", a list, or a single thing, as a list. */
function listOf(given: unknown): unknown[] {
  if (typeof given === "string") return given.split(",");
  if (Array.isArray(given)) return given;
  return [given];
}

/** How people write yes and no, numbers in mergekit's files among them. */
const flags: ReadonlyMap<unknown, boolean> = new Map<unknown, boolean>([
  ...[true, "true", "on", 1].map((yes) => [yes, true] as const),
  ...[false, "false", "off", 0].map((no) => [no, false] as const),
]);

function valueOf(
  where: string,
  parameter: Parameter,
  given: unknown,
  inputs: number,
): ParameterValues[string] {
  switch (parameter.kind) {
    case "number":
      return numberOf(where, given, parameter);
    case "numbers": {
      const list = listOf(given);
      if (list.length !== 1 && list.length !== inputs)
        throw new UserError(
          `${where} ${String(given)}: ${list.length} numbers for ${inputs} models; give one, or one for each`,
        );
      // One stands for all.
      return Array.from({ length: inputs }, (_, i) => numberOf(where, list[i % list.length], parameter));
    }
    case "flag": {
      const flag = flags.get(given);
      if (flag !== undefined) return flag;
      throw new UserError(`${where} ${JSON.stringify(given)}: it must be on or off`);
    }
    default: {
      const chosen = parameter.of.find((name) => name === given);
      if (chosen !== undefined) return chosen;
      throw new UserError(`${where} ${JSON.stringify(given)}: it must be one of ${parameter.of.join(", ")}`);
    }
  }
}

/**
 * A method's parameters from what a user gave: checked, and with defaults for the rest.
 * @param where how the user writes a parameter, for the message: "--" before it, or a file and its key
 * @throws UserError naming what is wrong, or is not the method's
 */
export function resolveValues(
  method: Method,
  given: Readonly<Record<string, unknown>>,
  inputs: number,
  where: (key: string) => string = (key) => `--${kebab(key)}`,
): ParameterValues {
  const parameters = acceptedParameters(method);
  const stray = Object.keys(given).find((key) => given[key] !== undefined && !Object.hasOwn(parameters, key));
  if (stray !== undefined)
    throw new UserError(
      `${where(stray)}: ${method.name} has no such ` +
        `parameter${nearest(stray, Object.keys(parameters))}; it has ` +
        Object.keys(parameters).map(kebab).join(", "),
    );
  const [least, most] = method.inputs ?? [1, Infinity];
  if (inputs < least || inputs > most)
    throw new UserError(`${method.name} merges ${rangeText(least, most)} models, not ${inputs}`);
  const values: ParameterValues = Object.fromEntries(
    Object.entries(parameters).map(([key, parameter]) => [
      key,
      valueOf(where(key), parameter, given[key] ?? parameter.default, inputs),
    ]),
  );
  const unread = method.unread?.(values).find((key) => given[key] !== undefined);
  if (unread !== undefined)
    throw new UserError(
      `${where(unread)}: ${method.name} does not look at it with these other parameters ` +
        `(\`train-merge methods ${method.name}\` says when it does)`,
    );
  return values;
}
