/** Templates out of files that somebody else wrote. */
import { Template } from "@huggingface/jinja";

/** @throws Error where it is no template, or has a loop that never ends within anybody's patience */
export function compileJinja(text: string): Template {
  if (/\brange\s*\([^)]*\d{6}/.test(text)) throw new Error("it counts beyond 100,000");
  return new Template(text);
}
