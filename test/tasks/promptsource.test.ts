import { existsSync, readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { packageFolder } from "../../src/package.js";
import { readExamples } from "../../src/tasks/files.js";
import { parseExample } from "../../src/tasks/parse.js";
import type { Prompted } from "../../src/tasks/prompt.js";
import { loadPrompts } from "../../src/tasks/prompts.js";
import { loadTasks } from "../../src/tasks/registry.js";
import { shared, temporaryFolder } from "../helpers.js";

/** Templates in promptsource's form against Jinja2 (scripts/golden/prompts.py); the published ones where they are. */
interface Golden {
  readonly tasks: Readonly<
    Record<
      string,
      {
        readonly rows: readonly Record<string, unknown>[];
        readonly templates: readonly { readonly name: string }[];
        /** By template and row; null where promptsource leaves the row out. */
        readonly put: readonly (readonly (Said | null)[])[];
      }
    >
  >;
}
interface Said {
  readonly prompt: string;
  readonly answers: readonly string[];
  readonly target: string;
}
const golden = JSON.parse(
  readFileSync(join(packageFolder, "test", "golden", "prompts.json"), "utf8"),
) as Golden;
const registry = await loadTasks();
const folder = await temporaryFolder();
const saidOf = (put: Prompted | undefined): Said | null =>
  put ? { prompt: put.prompt, answers: put.answers, target: put.answers[put.label]! } : null;

describe.each(Object.entries(golden.tasks))("%s", (id, { rows, templates, put }) => {
  test.each(templates.map(({ name }, i) => [name, i] as const))("%s", async (_name, i) => {
    const root = join(folder, id);
    await mkdir(root, { recursive: true });
    await writeFile(
      join(root, "templates.yaml"),
      JSON.stringify({ templates: Object.fromEntries(templates.entries()) }),
    );
    // Some of these put the answers in another order than the classes: that accuracy alone bears.
    const task = { ...registry.get(id)!, metrics: ["accuracy" as const] };
    const template = (await loadPrompts(root)).of(task)[i]!;
    const made = rows.map((fields, row) =>
      saidOf(template.put(parseExample({ fields, where: `row ${row}` }, task)!)),
    );
    expect(made).toEqual(put[i]);
  });
});

const promptsource = join(shared, "data", "promptsource");
const hasPromptsource = existsSync(promptsource);

/** What Jinja2 made of one published row of every data set with each of promptsource's templates. */
interface Reference {
  readonly name: string;
  readonly prompt: string | null;
  readonly target: string | null;
  readonly choices: readonly string[] | null;
  readonly original: boolean;
  readonly random?: boolean;
}

/** One that draws without the reference's saying so. */
const drawing = new Set(["Check if a random answer is valid or not"]);

test.skipIf(!hasPromptsource)(
  `every template of the papers' 17 data sets${hasPromptsource ? "" : " (skipped: ../shared is not here)"}`,
  async () => {
    const references = JSON.parse(readFileSync(join(promptsource, "reference.json"), "utf8")) as Record<
      string,
      Reference[]
    >;
    const prompts = await loadPrompts(promptsource);
    for (const [id, all] of Object.entries(references)) {
      const task = registry.get(id)!;
      const [example] = await readExamples(join(shared, "data", "published", id, "test.jsonl"), task);
      const wanted = all.filter(
        ({ original, choices }) => original && (choices === null) === (task.kind === "generate"),
      );
      const templates = prompts.of(task);
      expect(
        templates.map(({ name }) => name),
        id,
      ).toEqual(wanted.map(({ name }) => name));
      for (const [i, { name, prompt, target, choices, random }] of wanted.entries()) {
        const put = templates[i]!.put(example!);
        if (prompt === null) {
          expect(put, `${id}, ${name}`).toBeUndefined();
          continue;
        }
        if (choices) expect(put?.answers, `${id}, ${name}`).toEqual(choices);
        // Python's draws and ours are others.
        if (random || drawing.has(name)) continue;
        expect(put?.answers[put.label], `${id}, ${name}`).toBe(target);
        expect(put?.prompt, `${id}, ${name}`).toBe(prompt);
      }
    }
  },
);
