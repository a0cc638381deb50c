import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect, test, vi } from "vitest";
import { UserError } from "../../src/errors.js";
import { packageFolder } from "../../src/package.js";
import type { Example } from "../../src/tasks/examples.js";
import { loadPrompts } from "../../src/tasks/prompts.js";
import type { Task } from "../../src/tasks/registry.js";
import { temporaryFolder } from "../helpers.js";

/** What a template makes of an example, and which templates a task gets. */
const folder = await temporaryFolder();
const task = (id: string, kind: Task["kind"], labels: string[] | null = ["yes", "no"]): Task =>
  ({ id, kind, labels, metrics: ["accuracy"], max_new_tokens: 8, synthetic: false, what: "" }) as Task;
/** A text with a class, or several with an ending each. */
const textExample = (texts: Example["texts"], label: number, fields = {}): Example => ({
  kind: "text",
  texts,
  label,
  fields,
});
const pair = textExample([["A man sleeps.", "He is awake."]], 1);
const rte = task("rte", "pair");
const choice = task("copa", "choice", null);
const endings = textExample(
  [
    ["It fell.", "It broke."],
    ["It fell.", "It sang."],
  ],
  0,
);
const asked = task("squad", "generate", null);
const question: Example = {
  kind: "generate",
  texts: [["Who?"]],
  label: 0,
  answers: ["Me.", "Myself."],
  fields: {},
};

type Entry = Readonly<{ name?: string; jinja: string; answer_choices?: string | null }>;
let made = 0;
/** A folder of promptsource's form: path of a task's folder → its templates. */
async function folderOf(tasks: Readonly<Record<string, readonly Entry[] | string>>): Promise<string> {
  const root = join(folder, String(made++));
  await mkdir(root);
  for (const [path, templates] of Object.entries(tasks)) {
    const file = join(root, path, "templates.yaml");
    await mkdir(dirname(file), { recursive: true });
    const text =
      typeof templates === "string"
        ? templates
        : JSON.stringify({
            dataset: path,
            templates: Object.fromEntries(templates.map((one, i) => [`id-${i}`, { name: `n${i}`, ...one }])),
          });
    await writeFile(file, text);
  }
  return root;
}
/** What one template makes of an example. */
async function made1(entry: Entry, of: Task, example: Example) {
  const prompts = await loadPrompts(await folderOf({ [of.id]: [entry] }));
  return prompts.of(of)[0]!.put(example)!;
}

test("what stands before ||| is given, without the spaces around it; the answers are its choices", async () => {
  const entry = {
    jinja: "  {{premise}} So: {{hypothesis}}  ||| {{answer_choices[label]}}",
    answer_choices: "Yes ||| No ",
  };
  expect(await made1(entry, rte, pair)).toEqual({
    prompt: "A man sleeps. So: He is awake.",
    answers: ["Yes", "No"],
    label: 1,
  });
});

test("every name that files give to the two texts is the text; a row's own columns win", async () => {
  const names = ["text_a", "premise", "sentence1", "question1", "question", "sentence", "passage", "text"];
  const seconds = ["text_b", "hypothesis", "sentence2", "question2"];
  const jinja = [...names, ...seconds].map((name) => `{{${name}}}`).join("/");
  const { prompt } = await made1({ jinja, answer_choices: "a ||| b" }, rte, pair);
  expect(prompt).toBe([...names.map(() => "A man sleeps."), ...seconds.map(() => "He is awake.")].join("/"));
  const fields = { premise: "mine", extra: "more", label: "not a number" };
  const { prompt: own } = await made1(
    { jinja: "{{premise}}/{{text_a}}/{{extra}}/{{label}}", answer_choices: "a ||| b" },
    rte,
    textExample(pair.texts, 1, fields),
  );
  expect(own).toBe("mine/A man sleeps./more/1");
});

test("a text alone has no second, and an image no text", async () => {
  const jinja = "{% if text_b is defined %}two{% else %}one{% endif %}";
  const single = textExample([["Fine."]], 0);
  const entry = { jinja, answer_choices: "a ||| b" };
  expect((await made1(entry, task("sst2", "single"), single)).prompt).toBe("one");
  expect((await made1(entry, rte, pair)).prompt).toBe("two");
  const none = {
    jinja: "{% if text_a is defined %}text{% else %}none{% endif %}",
    answer_choices: "a ||| b",
  };
  const picture = () => {
    throw new Error("nobody looks at it");
  };
  const image: Example = { kind: "image", texts: [], label: 0, picture };
  expect((await made1(none, task("mnist", "image"), image)).prompt).toBe("none");
});

test("of a choice, the endings are its choices, and by their numbers choice1, choice2", async () => {
  const jinja =
    "{{text_a}} {{choice1}} {{choice2}} {{choices | join('/')}} {% if text_b is defined %}b{% endif %}";
  expect(await made1({ jinja, answer_choices: "{{choices | join(' ||| ')}}" }, choice, endings)).toEqual({
    prompt: "It fell. It broke. It sang. It broke./It sang.",
    answers: ["It broke.", "It sang."],
    label: 0,
  });
  const plain = { jinja: "{% if choices is defined %}choices{% endif %}-", answer_choices: "a ||| b" };
  expect((await made1(plain, rte, pair)).prompt).toBe("-");
});

test("a text to be said: the template's, else the first that is right", async () => {
  const of = (jinja: string) => made1({ jinja }, asked, question);
  expect(await of(" {{text_a}} {{answers | join('+')}} {{answer}} ||| {{answers[1]}} ")).toEqual({
    prompt: "Who? Me.+Myself. Me.",
    answers: ["Myself."],
    label: 0,
  });
  expect(await of("{{text_a}}")).toEqual({ prompt: "Who?", answers: ["Me."], label: 0 });
  expect(await of("{{text_a}} |||  ")).toEqual({ prompt: "Who?", answers: ["Me."], label: 0 });
  const { prompt } = await made1(
    { jinja: "{% if answer is defined %}a{% endif %}-", answer_choices: "a ||| b" },
    rte,
    pair,
  );
  expect(prompt, "no answers where there are none").toBe("-");
});

test("templates that rank answers are for what competes, the others for what is said", async () => {
  const entries = [
    { jinja: "ranked", answer_choices: "a ||| b" },
    { jinja: "said" },
    { jinja: "said too", answer_choices: null },
  ];
  const root = await folderOf({ rte: entries, squad: entries });
  const prompts = await loadPrompts(root);
  expect(prompts.of(rte).map((template) => template.put(pair)?.prompt)).toEqual(["ranked"]);
  expect(prompts.of(asked).map((template) => template.put(question)?.prompt)).toEqual(["said", "said too"]);
  expect(prompts.of(rte), "compiled once").toBe(prompts.of(rte));
  expect(prompts.fileOf(rte)).toBe(join(root, "rte", "templates.yaml"));
});

test("what a folder lacks is refused, with what it would have to hold", async () => {
  const root = await folderOf({ rte: [{ jinja: "x" }], squad: [{ jinja: "x", answer_choices: "a ||| b" }] });
  const prompts = await loadPrompts(root);
  const lacks = (of: Task) => () => prompts.of(of);
  expect(lacks(rte)).toThrow(
    `--prompts ${root}: there are no templates with answer_choices for rte (a list of that name ` +
      "in a prompts.yaml, or a folder with a templates.yaml)",
  );
  expect(lacks(asked)).toThrow(
    `--prompts ${root}: there are no templates without answer_choices for squad (a list of that ` +
      "name in a prompts.yaml, or a folder with a templates.yaml)",
  );
  expect(lacks(choice)).toThrow("for copa");
  expect(lacks(choice)).toThrow(UserError);
});

test.each([
  ["wsc", "wsc.fixed"],
  ["winogrande", "winogrande_xl"],
  ["winogrande", "winogrande_debiased"],
  ["story_cloze", "2016"],
  ["anli_r1", "anli"],
  ["anli_r2", "anli"],
  ["anli_r3", "anli"],
  ["social_iqa", "social_i_qa"],
  ["arc_easy", "ARC-Easy"],
  ["openbookqa", "main"],
  ["paws", "labeled_final"],
  ["sst2", "sst2"],
  ["trec6", "trec"],
])("promptsource has %s in a folder called %s, at any depth", async (id, name) => {
  const entry = { jinja: "from there", answer_choices: "a ||| b" };
  const root = await folderOf({ [`some/where/${name}`]: [entry] });
  const prompts = await loadPrompts(root);
  expect(prompts.of(task(id, "pair"))[0]!.put(pair)!.prompt).toBe("from there");
  expect(prompts.fileOf(task(id, "pair"))).toBe(join(root, "some/where", name, "templates.yaml"));
});

test("a folder of the task's own name comes before promptsource's", async () => {
  const entry = (jinja: string) => [{ jinja, answer_choices: "a ||| b" }];
  const prompts = await loadPrompts(
    await folderOf({ "a/winogrande_xl": entry("theirs"), "b/winogrande": entry("own") }),
  );
  expect(prompts.of(task("winogrande", "pair"))[0]!.put(pair)!.prompt).toBe("own");
});

test("only files called templates.yaml are read", async () => {
  const root = await folderOf({ rte: [{ jinja: "x", answer_choices: "a ||| b" }] });
  await writeFile(join(root, "rte", "README.yaml"), "{");
  await mkdir(join(root, "cb", "templates.yaml"), { recursive: true });
  expect((await loadPrompts(root)).of(rte)).toHaveLength(1);
});

test("promptsource's own tags are read without a word", async () => {
  const warned = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
  const text =
    'dataset: rte\ntemplates:\n  one: !Template\n    name: n\n    jinja: "x"\n    answer_choices: a ||| b\n';
  const prompts = await loadPrompts(await folderOf({ rte: text }));
  expect(prompts.of(rte)[0]!.put(pair)!).toEqual({ prompt: "x", answers: ["a", "b"], label: 1 });
  expect(warned).not.toHaveBeenCalled();
  warned.mockRestore();
});

test("a file that is no YAML is said to be none, in one line", async () => {
  const broken = loadPrompts(await folderOf({ rte: 'templates:\n  one: "no end\n' }));
  await expect(broken).rejects.toThrow(
    /\/rte\/templates\.yaml: not valid YAML \(Missing closing "quote[^\n]*\)$/,
  );
});

test("a file of another form says which it is, and where in it", async () => {
  const other = await folderOf({ rte: "templates:\n  one:\n    name: n\n    jinja: 7\n" });
  const form = loadPrompts(other);
  await expect(form).rejects.toBeInstanceOf(UserError);
  await expect(form).rejects.toThrow(
    `${other}/rte/templates.yaml: not promptsource's form: templates.one.jinja: `,
  );
  await expect(form).rejects.toThrow(/expected string/);
  const missing = loadPrompts(join(folder, "nowhere"));
  await expect(missing).rejects.toThrow(`--prompts ${join(folder, "nowhere")}: there is no such folder`);
  await expect(missing).rejects.toBeInstanceOf(UserError);
});

test("a template that fails says where it stands, and for which task", async () => {
  const root = await folderOf({
    rte: [{ jinja: "{% if %}", answer_choices: "a ||| b" }],
    cb: [{ name: "short", jinja: "x", answer_choices: "only" }],
  });
  const prompts = await loadPrompts(root);
  expect(() => prompts.of(rte)).toThrow(`${root}/rte/templates.yaml: template "n0" of rte: `);
  expect(() => prompts.of(rte)).toThrow(UserError);
  const [short] = prompts.of(task("cb", "pair"));
  expect(short!.put({ ...pair, label: 0 })!.answers).toEqual(["only"]);
  expect(() => short!.put(pair)).toThrow(
    `${root}/cb/templates.yaml: template "short" of cb: it gives 1 answers, the example's is number 1`,
  );
  expect(() => short!.put(pair)).toThrow(UserError);
});

test("the templates that ship: every answer of a task, and none for a task without any", async () => {
  const prompts = await loadPrompts();
  const file = join(packageFolder, "data", "prompts.yaml");
  expect(prompts.fileOf(rte)).toBe(file);
  const templates = prompts.of(rte);
  expect(templates.length).toBeGreaterThan(1);
  for (const template of templates) {
    const { prompt, answers } = template.put(pair)!;
    expect(prompt).toContain("A man sleeps.");
    expect(answers).toHaveLength(2);
  }
  expect(prompts.of(choice)[0]!.put(endings)!.answers).toEqual(["It broke.", "It sang."]);
  // One that ships without answers of its own: the endings compete, or the classes' names.
  const columns = { background: "b", situation: "s", question: "q", answer: "It broke." };
  const bare = (kind: "choice" | "pair", labels: string[] | null, example: Example) =>
    prompts.of(task("ropes", kind, labels))[0]!.put({ ...example, fields: columns } as Example)!.answers;
  expect(bare("choice", null, endings)).toEqual(["It broke.", "It sang."]);
  const classes = (await loadPrompts())
    .of(task("ropes", "pair", ["yes", "no"]))[0]!
    .put({ ...pair, fields: { ...columns, answer: "yes" } } as Example)!.answers;
  expect(classes).toEqual(["yes", "no"]);
  const nameless = (await loadPrompts()).of(task("ropes", "generate", null))[0]!;
  expect(() => nameless.put({ ...pair, label: 0, fields: columns } as Example)).toThrow(
    'it calls "It broke." right, which is none of its answers',
  );
  const without = () => prompts.of(task("nothing", "pair"));
  expect(without).toThrow(
    "there is no prompt for task nothing; give a file like data/prompts.yaml, or a folder of promptsource's templates",
  );
  expect(without).toThrow(UserError);
  // A folder that is given is looked at alone.
  const empty = await loadPrompts(await folderOf({ cb: [{ jinja: "x", answer_choices: "a" }] }));
  expect(() => empty.of(rte)).toThrow("--prompts");
  expect(empty.fileOf(rte)).toBe(file);
});

test("templates of one's own stand in a file of the form that ships, or in a folder's prompts.yaml", async () => {
  const root = join(folder, "own");
  await mkdir(root, { recursive: true });
  const path = join(root, "prompts.yaml");
  const own = 'mood:\n  - name: feel\n    jinja: "{{text_a}} How? ||| {{answer_choices[label]}}"\n';
  await writeFile(path, `${own}    answer_choices: "sad ||| glad"\n`);
  const mood = task("mood", "single", ["sad", "glad"]);
  for (const given of [path, root]) {
    const prompts = await loadPrompts(given);
    expect(prompts.fileOf(mood)).toBe(path);
    const [template] = prompts.of(mood);
    expect(template!.put(textExample([["It rains."]], 0))).toEqual({
      prompt: "It rains. How?",
      answers: ["sad", "glad"],
      label: 0,
    });
  }
  await writeFile(path, "mood: 3\n");
  await expect(loadPrompts(path)).rejects.toThrow(/it must hold a list of templates a task/);
});
