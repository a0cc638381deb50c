import { readFile } from "node:fs/promises";
import { parse, YAMLParseError } from "yaml";
import { UserError } from "../errors.js";

/** Reads a YAML file. @throws UserError naming the file and the line where it is none */
export async function readYaml(path: string): Promise<unknown> {
  try {
    return parse(await readFile(path, "utf8"));
  } catch (error) {
    if (error instanceof YAMLParseError) throw new UserError(`${path}: ${error.message.split("\n")[0]}`);
    throw error;
  }
}
