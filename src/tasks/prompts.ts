import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { Template } from "@huggingface/jinja";
import { parse } from "yaml";
import { z } from "zod";
import { UserError } from "../errors.js";
import { packageFolder } from "../package.js";
import { aliases, type Example } from "./examples.js";
import type { Task } from "./registry.js";

/**
 * An example put into words: what a model is given, and what it may say, the label being the right
 * answer's place; or the one text that it is to say.
 */
export interface Prompted {
  readonly prompt: string;
  readonly answers: readonly string[];
}

export interface Prompts {
  /** A task's templates. @throws UserError where there are none */
  of(task: Task): readonly ((example: Example) => Prompted)[];
  /** The file that they stand in. */
  fileOf(task: Task): string;
}

/** A template in promptsource's words: what stands before ||| is given, the rest is to be said. */
const entry = z.object({ name: z.string(), jinja: z.string(), answer_choices: z.string().nullish() });
type Entry = z.infer<typeof entry>;
const ours = z.record(z.string(), z.array(entry).min(1));
const theirs = z.object({ templates: z.record(z.string(), entry) });

/** What promptsource's folders are called where it is not the task's own name. */
const folderNames: Record<string, readonly string[]> = {
  wsc: ["wsc.fixed"],
  winogrande: ["winogrande_xl", "winogrande_debiased"],
  story_cloze: ["2016"],
  anli_r1: ["anli"],
  anli_r2: ["anli"],
  anli_r3: ["anli"],
  social_iqa: ["social_i_qa"],
  arc_easy: ["ARC-Easy"],
  openbookqa: ["main"],
  paws: ["labeled_final"],
  sst2: ["sst2"],
  trec6: ["trec"],
};

async function parseYaml(path: string): Promise<unknown> {
  try {
    // promptsource marks its templates with tags of its own.
    return parse(await readFile(path, "utf8"), { logLevel: "silent" });
  } catch (error) {
    throw new UserError(`${path}: not valid YAML (${(error as Error).message.split("\n")[0]})`);
  }
}

/** An example's values by every name that a template may use for them. */
function context({ texts, fields = {}, label, answers }: Example, { kind }: Task): Record<string, unknown> {
  const [first, second] = kind === "choice" ? [texts[0]?.[0], undefined] : [texts[0]?.[0], texts[0]?.[1]];
  const choices = kind === "choice" ? texts.map(([, ending]) => ending) : undefined;
  const named = (names: readonly string[], value: unknown) =>
    Object.fromEntries(
      value === undefined ? [] : names.filter((name) => /^\w+$/.test(name)).map((name) => [name, value]),
    );
  return {
    ...named(aliases.first, first),
    ...named(aliases.second, second),
    ...(answers && { answers, answer: answers[0] }),
    ...(choices && {
      choices,
      ...Object.fromEntries(choices.map((choice, i) => [`choice${i + 1}`, choice])),
    }),
    ...fields,
    label,
  };
}

function compile(
  { name, jinja, answer_choices: listed }: Entry,
  task: Task,
  where: string,
): (example: Example) => Prompted {
  const fail = (error: unknown): never => {
    throw new UserError(`${where}: template "${name}" of ${task.id}: ${(error as Error).message}`);
  };
  let [body, choices]: (Template | undefined)[] = [];
  try {
    body = new Template(jinja);
    choices = listed == null ? undefined : new Template(listed);
  } catch (error) {
    fail(error);
  }
  return (example) => {
    try {
      const values = context(example, task);
      if (example.answers) {
        const [prompt, said = ""] = body!.render(values).split("|||");
        return { prompt: prompt!.trim(), answers: [said.trim() || example.answers[0]!] };
      }
      const answers = choices
        ? choices
            .render(values)
            .split("|||")
            .map((answer) => answer.trim())
        : ((values["choices"] as string[] | undefined) ?? [...(task.labels ?? [])]);
      const [prompt] = body!.render({ ...values, answer_choices: answers }).split("|||");
      if (answers.length <= example.label)
        throw new Error(`it gives ${answers.length} answers, the example's is number ${example.label}`);
      return { prompt: prompt!.trim(), answers };
    } catch (error) {
      return fail(error);
    }
  };
}

/** Whether a template answers by one of several answers: others cannot be ranked. */
const ranks = ({ answer_choices: choices }: Entry): boolean => choices != null;

/** Every templates.yaml below a folder, by the name of its own folder. */
async function readFolder(folder: string): Promise<Map<string, { path: string; entries: Entry[] }>> {
  if (!existsSync(folder)) throw new UserError(`--prompts ${folder}: there is no such folder`);
  const found = new Map<string, { path: string; entries: Entry[] }>();
  for (const file of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!file.isFile() || file.name !== "templates.yaml") continue;
    const path = join(file.parentPath, file.name);
    const parsed = theirs.safeParse(await parseYaml(path));
    if (!parsed.success)
      throw new UserError(
        `${path}: not promptsource's form: ${parsed.error.issues[0]!.path.join(".")}: ` +
          parsed.error.issues[0]!.message,
      );
    found.set(basename(dirname(path)), { path, entries: Object.values(parsed.data.templates) });
  }
  return found;
}

/** The prompt templates that ship, or those of a folder of promptsource's YAML. */
export async function loadPrompts(folder?: string): Promise<Prompts> {
  const path = join(packageFolder, "data", "prompts.yaml");
  const own = ours.parse(await parseYaml(path));
  const given = folder === undefined ? undefined : await readFolder(folder);
  const compiled = new Map<string, readonly ((example: Example) => Prompted)[]>();
  const foundFor = (task: Task) =>
    [task.id, ...(folderNames[task.id] ?? [])]
      .map((name) => given?.get(name))
      .find((one) => one !== undefined);
  return {
    fileOf: (task) => foundFor(task)?.path ?? path,
    of(task) {
      const before = compiled.get(task.id);
      if (before) return before;
      const named = foundFor(task);
      const says = task.kind === "generate";
      const entries = given ? named?.entries.filter((one) => ranks(one) !== says) : own[task.id];
      if (!entries?.length)
        throw new UserError(
          given
            ? `--prompts ${folder}: there are no templates ${says ? "without" : "with"} answer_choices ` +
                `for ${task.id} (a folder of that name with a templates.yaml)`
            : `there is no prompt for task ${task.id}; give a folder of promptsource templates with --prompts`,
        );
      const templates = entries.map((one) => compile(one, task, named?.path ?? path));
      compiled.set(task.id, templates);
      return templates;
    },
  };
}
