import { readFile } from "node:fs/promises";
import { UserError } from "../errors.js";

/** Reads a YAML file. @throws UserError naming the file and the line where it is none */
export async function readYaml(path: string): Promise<unknown> {
  // Here: most commands read none, and it takes a tenth of a second to load.
  const { parse, YAMLParseError } = await import("yaml");
  try {
    return parse(await readFile(path, "utf8"));
  } catch (error) {
    if (error instanceof YAMLParseError) throw new UserError(`${path}: ${error.message.split("\n")[0]}`);
    throw error;
  }
}
