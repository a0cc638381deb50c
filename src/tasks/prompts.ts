import { readTextFile } from "../checkpoint/files.js";
import { existsSync, statSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { firstIssue, messageOf, UserError } from "../errors.js";
import { packageFolder } from "../package.js";
import { aliases } from "./columns.js";
import { compileJinja } from "./jinja.js";
import type { Example } from "./examples.js";
import type { Task } from "./registry.js";

/**
 * An example put into words: what a model is given, and what it may say, the label being the right
 * answer's place; or the one text that it is to say.
 */
export interface Prompted {
  readonly prompt: string;
  readonly answers: readonly string[];
}

type Templates = readonly ((example: Example) => Prompted)[];

export interface Prompts {
  /** A task's templates. @throws UserError where there are none */
  of(task: Task): Templates;
  /** The file that they stand in. */
  fileOf(task: Task): string;
}

/** A template in promptsource's words: what stands before ||| is given, the rest is to be said. */
const entry = z.object({ name: z.string(), jinja: z.string(), answer_choices: z.string().nullish() });
type Entry = z.infer<typeof entry>;
const ours = z.record(z.string(), z.array(entry).min(1));
const theirs = z.object({ templates: z.record(z.string(), entry) });

/** What promptsource's folders are called where it is not the task's own name. */
const promptsourceFolders: Record<string, readonly string[]> = {
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
  const { parse } = await import("yaml");
  try {
    // promptsource marks its templates with tags of its own.
    return parse(await readTextFile(path), { logLevel: "error" });
  } catch (error) {
    throw new UserError(`${path}: not valid YAML (${messageOf(error).split("\n")[0]})`);
  }
}

/** A value by those of some names that can be a template's; nothing where there is no value. */
function valuesBy(names: readonly string[], value: unknown): Record<string, unknown> {
  if (value === undefined) return {};
  return Object.fromEntries(names.filter((name) => /^\w+$/.test(name)).map((name) => [name, value]));
}

/** The endings of a choice by the names that templates have for them. */
function namedChoices(texts: Example["texts"]): Record<string, unknown> {
  const choices = texts.map(([, ending]) => ending);
  return { choices, ...Object.fromEntries(choices.map((choice, i) => [`choice${i + 1}`, choice])) };
}

/** An example's values by every name that a template may use for them. */
function context(example: Example, { kind }: Task): Record<string, unknown> {
  const { texts, label } = example;
  const [first, second] = texts[0] ?? [];
  return {
    ...valuesBy(aliases.first, first),
    ...(kind === "choice" ? namedChoices(texts) : valuesBy(aliases.second, second)),
    ...(example.kind === "generate" && { answers: example.answers, answer: example.answers[0] }),
    ...("fields" in example && example.fields),
    label,
  };
}

function compileTemplate(
  { name, jinja, answer_choices: listed }: Entry,
  task: Task,
  where: string,
): (example: Example) => Prompted {
  const told = <T>(make: () => T): T => {
    try {
      return make();
    } catch (error) {
      throw new UserError(`${where}: template "${name}" of ${task.id}: ${messageOf(error)}`);
    }
  };
  const body = told(() => compileJinja(jinja));
  const choices = told(() => (listed == null ? undefined : compileJinja(listed)));
  return (example) =>
    told(() => {
      const values = context(example, task);
      if (example.kind === "generate") {
        const [prompt = "", said = ""] = body.render(values).split("|||");
        return { prompt: prompt.trim(), answers: [said.trim() || (example.answers[0] ?? "")] };
      }
      const answers = choices ? parts(choices.render(values)) : answersOf(values, task);
      const [prompt = ""] = body.render({ ...values, answer_choices: answers }).split("|||");
      if (answers.length <= example.label)
        throw new Error(`it gives ${answers.length} answers, the example's is number ${example.label}`);
      return { prompt: prompt.trim(), answers };
    });
}

/** What promptsource separates by |||. */
const parts = (rendered: string): string[] => rendered.split("|||").map((part) => part.trim());

/** The answers of a template that lists none: an example's own choices, or the names of the classes. */
function answersOf({ choices }: Readonly<Record<string, unknown>>, { labels }: Task): readonly string[] {
  if (Array.isArray(choices) && choices.every((one) => typeof one === "string")) return choices;
  return labels ?? [];
}

/** Whether a template answers as a task does: one without answers to choose from can only be said. */
const answersLike =
  ({ kind }: Task) =>
  ({ answer_choices: choices }: Entry): boolean =>
    (choices == null) === (kind === "generate");

type FoundEntries = Map<string, { readonly path: string; readonly entries: readonly Entry[] }>;

/** A file in the form of the one that ships: a list of templates a task. */
async function readOwn(path: string): Promise<FoundEntries> {
  const parsed = ours.safeParse(await parseYaml(path));
  if (!parsed.success)
    throw new UserError(
      `${path}: ${firstIssue(parsed.error)}; it must hold a list of templates a task, each with name, jinja and ` +
        "answer_choices, as data/prompts.yaml does",
    );
  return new Map(Object.entries(parsed.data).map(([task, entries]) => [task, { path, entries }]));
}

/** Templates of a file in our own form, or of promptsource's folders: every templates.yaml, by its folder's name. */
async function readFolder(folder: string): Promise<FoundEntries> {
  if (!existsSync(folder)) throw new UserError(`--prompts ${folder}: there is no such folder or file`);
  if (statSync(folder).isFile()) return readOwn(folder);
  const own = join(folder, "prompts.yaml");
  const found: FoundEntries = existsSync(own) ? await readOwn(own) : new Map();
  for (const file of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!file.isFile() || file.name !== "templates.yaml") continue;
    const path = join(file.parentPath, file.name);
    const parsed = theirs.safeParse(await parseYaml(path));
    if (!parsed.success) throw new UserError(`${path}: not promptsource's form: ${firstIssue(parsed.error)}`);
    found.set(basename(dirname(path)), { path, entries: Object.values(parsed.data.templates) });
  }
  return found;
}

/** The prompt templates that ship, or those of a folder of promptsource's YAML. */
export async function loadPrompts(folder?: string): Promise<Prompts> {
  const path = join(packageFolder, "data", "prompts.yaml");
  const shipped = ours.parse(await parseYaml(path));
  const given = folder === undefined ? undefined : await readFolder(folder);
  const foundFor = ({ id }: Task) =>
    [id, ...(promptsourceFolders[id] ?? [])].map((name) => given?.get(name)).find((one) => one !== undefined);
  const fileOf = (task: Task) => foundFor(task)?.path ?? path;
  /** @throws UserError where there are none */
  const entriesOf = (task: Task): readonly Entry[] => {
    if (!given) {
      const entries = shipped[task.id];
      if (entries?.length) return entries;
      throw new UserError(
        `there is no prompt for task ${task.id}; give a file like data/prompts.yaml, or a folder of promptsource's ` +
          "templates, with --prompts",
      );
    }
    const entries = foundFor(task)?.entries.filter(answersLike(task));
    if (entries?.length) return entries;
    throw new UserError(
      `--prompts ${folder}: there are no templates ${task.kind === "generate" ? "without" : "with"} ` +
        `answer_choices for ${task.id} (a list of that name in a prompts.yaml, or a folder with a templates.yaml)`,
    );
  };
  const compiled = new Map<string, Templates>();
  return {
    fileOf,
    of(task) {
      const templates =
        compiled.get(task.id) ?? entriesOf(task).map((entry) => compileTemplate(entry, task, fileOf(task)));
      compiled.set(task.id, templates);
      return templates;
    },
  };
}
