/**
 * An error the user can mend: one line that says what, where and how. The command line prints the
 * message alone and exits 1; anything else that is thrown is a fault of ours and keeps its stack.
 */
export class UserError extends Error {
  override name = "UserError";
}

/** A command line that cannot be understood. */
export class UsageError extends UserError {
  override name = "UsageError";
}

/** The exit code of such a one, as shells and commander's kin have it. */
export const usageCode = 2;

/** The exit code of a reproduction of which a claim does not hold. */
export const missedCode = 3;

/** Thrown where somebody asked to stop and there is nothing to go on from in the middle. */
export class Stopped extends UserError {
  override name = "Stopped";
}

const systemMessages: Record<string, string> = {
  EPIPE: "nobody reads it any more (the pipe is closed)",
  ENOSPC: "no space left on the device; free some or choose another --out",
  EACCES: "permission denied",
  EPERM: "operation not permitted",
  EROFS: "the file system is read-only; choose another --out",
  ENOENT: "no such file or folder",
  ENOTDIR: "a part of the path is a file, not a folder",
  EISDIR: "a folder stands where a file was expected",
  EMFILE: "too many open files; raise the limit with `ulimit -n`",
};

/** The code of an error of the system ("ENOENT"); undefined of any other. */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error) || typeof error.code !== "string") return undefined;
  return error.code;
}

/** Whether an error is the file system's or the network's: libraries give theirs codes too. */
export const isSystemError = (error: unknown): boolean => error instanceof Error && "syscall" in error;

/** The path that an error of the file system names. */
function pathOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("path" in error) || typeof error.path !== "string") return undefined;
  return error.path;
}

/** Turns a file-system error into a UserError that names the path; passes every other error through. */
export function explain(error: unknown): unknown {
  const message = systemMessages[errorCode(error) ?? ""];
  if (message === undefined) return error;
  return new UserError(`${pathOf(error) ?? "writing"}: ${message}`, { cause: error });
}

/** The exit code of a run that was asked to stop and left a state behind. */
export const stoppedCode = 130;

/** What an error says, whatever was thrown. */
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** The first of what a schema finds wrong: where it stands, and what it is. */
export function firstIssue(error: {
  readonly issues: readonly { readonly path: readonly PropertyKey[]; readonly message: string }[];
}): string {
  const [issue] = error.issues;
  return issue === undefined ? "" : `${issue.path.join(".")}: ${issue.message}`;
}

/** `valPerTask` → `val-per-task`: a setting as users write it, in messages too. */
export const kebab = (key: string): string => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** `val-per-task` → `valPerTask`. */
export const camel = (key: string): string =>
  key.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());

/**
 * A text that a terminal and a page show as it stands: in one line, control characters and those that turn the
 * direction of writing written out, cut where it is long. Names of tensors and files are anybody's.
 */
export function safeLine(text: string, most = 500): string {
  const plain = text
    .replace(/\s*[\r\n\u2028\u2029]+\s*/g, " ")
    .replace(/\p{Cc}|\p{Cf}/gu, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
  if (plain.length <= most) return plain;
  return `${plain.slice(0, most - 1)}…`;
}
