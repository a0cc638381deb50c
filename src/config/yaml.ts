import { readTextFile } from "../checkpoint/files.js";
import { messageOf, UserError } from "../errors.js";

/** What a document says. @throws UserError where an alias names nothing, or so much that it is taken for a bomb */
function valueOf(document: { toJS(): unknown }, path: string): unknown {
  try {
    return document.toJS();
  } catch (error) {
    throw new UserError(`${path}: ${messageOf(error)}`);
  }
}

/** A document of a YAML file. */
export interface YamlDocument {
  readonly value: unknown;
  /** The line of a key, or of the nearest that stands around it; undefined of an empty document. */
  lineOf(path: readonly (string | number)[]): number | undefined;
  /** The line of the first key of this name whose value is this. */
  lineWhere(key: string, value: unknown): number | undefined;
  /** Keys that stand twice in one place, of which the last counts, by line. */
  readonly doubled: readonly string[];
}

/** What YAML 1.1, and so PyYAML, takes for yes and no beside true and false. */
const olderFlags = {
  tag: "tag:yaml.org,2002:bool",
  default: true,
  test: /^(?:yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)$/,
  resolve: (text: string): boolean => /^(yes|on)$/i.test(text),
} as const;

/** A whole number that begins with 0 is one of eight digits there. */
const olderOctal = {
  tag: "tag:yaml.org,2002:int",
  default: true,
  test: /^[-+]?0[0-7_]+$/,
  resolve: (text: string): number => Number.parseInt(text.replaceAll("_", ""), 8),
} as const;

/**
 * Reads all documents of a YAML file as PyYAML does: YAML 1.1 (`no` is false, `<<` takes another mapping's keys in), of
 * a key that stands twice the last.
 * @throws UserError naming the file and the line where it is none
 */
export async function readYamlDocuments(path: string): Promise<YamlDocument[]> {
  const { LineCounter, isCollection, isPair, isScalar, parseAllDocuments, visit } = await import("yaml");
  const lines = new LineCounter();
  const parsed = parseAllDocuments(await readTextFile(path), {
    merge: true,
    customTags: (tags) => [olderFlags, olderOctal, ...tags],
    lineCounter: lines,
    logLevel: "error",
  });
  const lineAt = (offset = 0) => lines.linePos(offset).line;
  return Array.from(parsed, (document) => {
    const [fault] = document.errors.filter(({ code }) => code !== "DUPLICATE_KEY");
    if (fault) throw new UserError(`${path}: ${fault.message.split("\n")[0]}`);
    const value = valueOf(document, path);
    return {
      value,
      doubled: document.errors.map(({ pos }) => `line ${lineAt(pos[0])}`),
      lineOf(keys) {
        for (let length = keys.length; length > 0; length--) {
          const node: unknown = document.getIn(keys.slice(0, length), true);
          if (isScalar(node) || isCollection(node)) return lineAt(node.range?.[0]);
        }
        return lineAt(document.contents?.range?.[0]);
      },
      lineWhere(key, wanted) {
        let found: number | undefined;
        visit(document, {
          Pair(_, pair) {
            if (!isPair(pair) || !isScalar(pair.key) || pair.key.value !== key || found !== undefined) return;
            const own: unknown = isScalar(pair.value) && pair.value.value;
            if (wanted === undefined || own === false || own === wanted) found = lineAt(pair.key.range?.[0]);
          },
        });
        return found;
      },
    };
  });
}

/** Reads a YAML file. @throws UserError naming the file and the line where it is none */
export async function readYaml(path: string): Promise<unknown> {
  // Here: most commands read none, and it takes a tenth of a second to load.
  const { parse } = await import("yaml");
  const text = await readTextFile(path);
  try {
    return parse(text, { logLevel: "error" });
  } catch (error) {
    throw new UserError(`${path}: ${messageOf(error).split("\n")[0]}`);
  }
}
