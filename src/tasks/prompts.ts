import { readTextFile } from "../checkpoint/files.js";
import { existsSync, statSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename, join, relative, sep } from "node:path";
import { z } from "zod";
import { firstIssue, messageOf, UserError } from "../errors.js";
import { packageFolder } from "../package.js";
import { compileTemplate, type Entry, type Style, type Template } from "./prompt.js";
import type { Task } from "./registry.js";

export interface Prompts {
  /** A task's templates. @throws UserError where there are none */
  of(task: Task): readonly Template[];
  /** The file that they stand in. */
  fileOf(task: Task): string;
}

const entry = z.object({ name: z.string(), jinja: z.string(), answer_choices: z.string().nullish() });
const ours = z.record(z.string(), z.array(entry).min(1));
/** promptsource says of a template whether it asks what the data set was made for. */
const theirEntry = entry.extend({ metadata: z.object({ original_task: z.boolean().nullish() }).nullish() });
const theirs = z.object({ templates: z.record(z.string(), theirEntry) });

/** Where promptsource keeps a task's templates, if not in a folder of its name; the first that is there counts. */
const promptsourceFolders: Record<string, readonly string[]> = {
  rte: ["super_glue/rte"],
  cb: ["super_glue/cb"],
  copa: ["super_glue/copa"],
  wic: ["super_glue/wic"],
  boolq: ["super_glue/boolq"],
  wsc: ["super_glue/wsc.fixed", "wsc.fixed"],
  winogrande: ["winogrande/winogrande_xl", "winogrande_xl", "winogrande_debiased"],
  story_cloze: ["story_cloze/2016", "2016"],
  anli_r1: ["anli"],
  anli_r2: ["anli"],
  anli_r3: ["anli"],
  social_iqa: ["social_i_qa"],
  arc_easy: ["ai2_arc/ARC-Easy", "ARC-Easy"],
  openbookqa: ["openbookqa/main", "main"],
  paws: ["paws/labeled_final", "labeled_final"],
  hotpot_qa: ["kilt_tasks/hotpotqa", "hotpotqa"],
  adversarial_qa: ["adversarial_qa/adversarialQA", "adversarialQA"],
  dbpedia: ["dbpedia_14"],
  cnn_dailymail: ["cnn_dailymail/3.0.0"],
  sst2: ["glue/sst2"],
  cola: ["glue/cola"],
  mrpc: ["glue/mrpc"],
  qqp: ["glue/qqp"],
  qnli: ["glue/qnli"],
  mnli: ["glue/mnli"],
  wnli: ["glue/wnli"],
  stsb: ["glue/stsb"],
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

/** Whether a template answers as a task does: one without answers to choose from can only be said. */
const answersLike =
  ({ kind }: Task) =>
  ({ answer_choices: choices }: Entry): boolean =>
    (choices == null) === (kind === "generate");

/** A task's templates in a file of the form of the one that ships: a list a task. */
interface OwnFile {
  readonly path: string;
  readonly tasks: Readonly<Record<string, readonly Entry[]>>;
}

async function readOwn(path: string): Promise<OwnFile> {
  const parsed = ours.safeParse(await parseYaml(path));
  if (!parsed.success)
    throw new UserError(
      `${path}: ${firstIssue(parsed.error)}; it must hold a list of templates a task, each with name, jinja and ` +
        "answer_choices, as data/prompts.yaml does",
    );
  return { path, tasks: parsed.data };
}

type TheirEntry = z.infer<typeof theirEntry>;

/** A templates.yaml of promptsource's, and its folder's path within theirs. */
interface TheirFile {
  readonly path: string;
  readonly folder: string;
  readonly entries: readonly TheirEntry[];
}

/** Every templates.yaml in a folder. */
async function readTheirs(root: string): Promise<TheirFile[]> {
  const found: TheirFile[] = [];
  for (const file of await readdir(root, { recursive: true, withFileTypes: true })) {
    if (!file.isFile() || file.name !== "templates.yaml") continue;
    const path = join(file.parentPath, file.name);
    const parsed = theirs.safeParse(await parseYaml(path));
    if (!parsed.success) throw new UserError(`${path}: not promptsource's form: ${firstIssue(parsed.error)}`);
    const folder = relative(root, file.parentPath).split(sep).join("/") || basename(root);
    found.push({ path, folder, entries: Object.values(parsed.data.templates) });
  }
  return found.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** What --prompts names. */
interface Given {
  readonly own?: OwnFile | undefined;
  readonly theirs: readonly TheirFile[];
}

async function readGiven(folder: string): Promise<Given> {
  if (!existsSync(folder)) throw new UserError(`--prompts ${folder}: there is no such folder or file`);
  if (statSync(folder).isFile()) return { own: await readOwn(folder), theirs: [] };
  const own = join(folder, "prompts.yaml");
  return { own: existsSync(own) ? await readOwn(own) : undefined, theirs: await readTheirs(folder) };
}

/** promptsource's file for a task. @throws UserError where two folders could be meant */
function theirFileOf({ id }: Task, files: readonly TheirFile[]): TheirFile | undefined {
  for (const name of [id, ...(promptsourceFolders[id] ?? [])].toSorted(deeperFirst)) {
    const fitting = files.filter(({ folder }) => folder === name || folder.endsWith(`/${name}`));
    const [one, other] = fitting;
    if (one && other)
      throw new UserError(
        `${one.path} and ${other.path}: either may be meant for ${id}; name the folder of one of them with --prompts`,
      );
    if (one) return one;
  }
  return undefined;
}
const deeperFirst = (a: string, b: string): number => Number(b.includes("/")) - Number(a.includes("/"));

/** Those that ask what the data set was made for, as T0, T-Few and TIES take them; all where none says so. */
function originals(entries: readonly TheirEntry[]): readonly TheirEntry[] {
  const found = entries.filter(({ metadata }) => metadata?.original_task === true);
  return found.length > 0 ? found : entries;
}

/** A task's templates, and whose they are. */
interface Found {
  readonly path: string;
  readonly style: Style;
  readonly entries: readonly Entry[];
}

function foundIn({ own, theirs: files }: Given, task: Task): Found | undefined {
  const listed = own?.tasks[task.id];
  const fits = answersLike(task);
  if (own && listed) return { path: own.path, style: "ours", entries: listed.filter(fits) };
  const file = theirFileOf(task, files);
  if (!file) return undefined;
  return { path: file.path, style: "promptsource", entries: originals(file.entries.filter(fits)) };
}

/** The prompt templates that ship, or those of a folder of promptsource's YAML. */
export async function loadPrompts(folder?: string): Promise<Prompts> {
  const shipped = await readOwn(join(packageFolder, "data", "prompts.yaml"));
  const given: Given = folder === undefined ? { theirs: [] } : await readGiven(folder);
  const found = (task: Task): Found => {
    const own = shipped.tasks[task.id];
    if (folder === undefined && own) return { path: shipped.path, style: "ours", entries: own };
    if (folder === undefined)
      throw new UserError(
        `there is no prompt for task ${task.id}; give a file like data/prompts.yaml, or a folder of promptsource's ` +
          "templates, with --prompts",
      );
    const one = foundIn(given, task);
    if (one && one.entries.length > 0) return one;
    throw new UserError(
      `--prompts ${folder}: there are no templates ${task.kind === "generate" ? "without" : "with"} ` +
        `answer_choices for ${task.id} (a list of that name in a prompts.yaml, or a folder with a templates.yaml)`,
    );
  };
  const compiled = new Map<string, readonly Template[]>();
  return {
    fileOf: (task) => foundIn(given, task)?.path ?? shipped.path,
    of(task) {
      const known = compiled.get(task.id);
      if (known) return known;
      const { entries, style, path } = found(task);
      const templates = entries.map((one) => compileTemplate(one, task, style, path));
      compiled.set(task.id, templates);
      return templates;
    },
  };
}
