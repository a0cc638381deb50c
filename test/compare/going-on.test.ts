import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { runCandidate, type Candidate, type Made } from "../../src/compare/candidates.js";
import { runComparison, type CompareOptions } from "../../src/compare/compare.js";
import { heldOutHashes, measureHeldOut } from "../../src/compare/held-out.js";
import { Stopped } from "../../src/errors.js";
import { openOutput } from "../../src/folder/output.js";
import { openInputs, type Inputs } from "../../src/inputs/open.js";
import { findMethod } from "../../src/methods/index.js";
import type { ResultRow } from "../../src/report/rows.js";
import { temporaryFolder } from "../helpers.js";
import { startToy } from "../toy.js";
import { toyInputs, toyOptions } from "./toy-inputs.js";

/** What a comparison runs, what it finds again, and what it writes; how a candidate is run is no part of it. */
vi.mock("../../src/compare/candidates.js", async (original) => ({
  ...(await original<object>()),
  runCandidate: vi.fn(),
}));
vi.mock("../../src/compare/held-out.js", () => ({ heldOutHashes: vi.fn(), measureHeldOut: vi.fn() }));
vi.mock("../../src/inputs/open.js", () => ({
  openInputs: vi.fn(),
  mergeContextOf: ({ model, vectors }: Inputs) => ({ model, vectors }),
}));
vi.mock("../../src/inputs/locate.js", async (original) => ({
  ...(await original<object>()),
  recipeOf: () => ({
    name: "toy-a+b",
    locations: { base: "/base", sources: [{ folder: "/a" }, { folder: "/b" }] },
  }),
}));
vi.mock("../../src/folder/output.js", () => ({ openOutput: vi.fn(), writeHead: vi.fn() }));
vi.mock("../../src/compare/search.js", () => ({ searchGrid: vi.fn() }));
vi.mock("../../src/folder/merge.js", () => ({ writeMerge: vi.fn() }));
vi.mock("../../src/run/merge.js", () => ({ trainMerge: vi.fn() }));
vi.mock("../../src/run/evaluate.js", () => ({ evaluateFolder: vi.fn() }));
vi.mock("../../src/treerun/run.js", () => ({ mergeTree: vi.fn() }));
vi.mock("../../src/mergers/statistics.js", () => ({ statisticsFor: vi.fn() }));

const folder = await temporaryFolder();
let made = 0;
const row = (method: string, task: string, value: number): ResultRow => ({
  method,
  task,
  split: "test",
  metric: "accuracy",
  value,
  n: 4,
  seed: 3,
});
/** What a candidate comes to, and what it leaves. */
const result = (name: string, more: Partial<Made> = {}): Made => ({
  rows: [row(name, "a", 0.5), row(name, "b", 0.75)],
  seconds: { total: 2.25, merge: 1 },
  values: { lambda: 0.3 },
  ...more,
});
const run = vi.mocked(runCandidate);
let inputs: Inputs;
let disposed = 0;
beforeAll(startToy);
beforeEach(async () => {
  disposed = 0;
  const own = await toyInputs();
  inputs = { ...own, dispose: async () => void disposed++ };
  vi.mocked(openInputs).mockImplementation(() => Promise.resolve(inputs));
  vi.mocked(openOutput).mockImplementation(async (out) => void (await mkdir(out, { recursive: true })));
  vi.mocked(heldOutHashes).mockResolvedValue([]);
  vi.mocked(measureHeldOut).mockResolvedValue([]);
  run.mockReset().mockImplementation(async ({ out }, { name }) => {
    await mkdir(join(out, "models", name), { recursive: true });
    return result(name);
  });
});
afterEach(() => inputs.vectors.dispose());

interface Watched {
  readonly stopping?: () => boolean;
}
/** Compares two merges without training, and writes down what whoever watches is told. */
async function compare(changed: Partial<CompareOptions> = {}, { stopping = () => false }: Watched = {}) {
  const out = changed.out ?? join(folder, String(made++));
  const notes: string[] = [];
  const compared = await runComparison(
    {
      ...toyOptions(),
      out,
      methods: ["average", "ties"],
      search: false,
      keep: false,
      given: {},
      ...changed,
    },
    {
      note: (message) => void notes.push(message),
      progress: (phase, done, of) => void notes.push(`${phase} ${done}/${of}`),
      step: () => {},
      stopping,
    },
  );
  const ran = run.mock.calls.map(([, { name }]) => name);
  return { ...compared, notes, ran };
}
/** The identities of the candidates that were run. */
const identities = () => run.mock.calls.map(([, , identity]) => identity);
async function identityWith(changed: Partial<CompareOptions>): Promise<string> {
  run.mockClear();
  await compare({ methods: ["ties"], ...changed });
  return identities()[0]!;
}
const json = async (...path: string[]) =>
  JSON.parse(await readFile(join(...path), "utf8")) as Record<string, unknown>;

test("rows: every expert on its own task and the base first, then the methods as they were asked for", async () => {
  const { rows, times, values, finished, synthetic, ran, out } = await compare({
    methods: ["ties", "average"],
  });
  expect(rows.map(({ method, task, value }) => [method, task, value])).toEqual([
    ["individual", "a", 1],
    ["individual", "b", 1],
    ["pretrained", "a", 0],
    ["pretrained", "b", 0],
    ["ties", "a", 0.5],
    ["ties", "b", 0.75],
    ["average", "a", 0.5],
    ["average", "b", 0.75],
  ]);
  expect(rows[0]!.seed).toBe(3);
  expect(ran).toEqual(["ties", "average"]);
  expect(times).toEqual(
    ["ties", "average"].map((method) => ({ method, seen: "nothing", total: 2.25, merge: 1 })),
  );
  expect(values).toEqual({ ties: { lambda: 0.3 }, average: { lambda: 0.3 } });
  expect([finished, synthetic, disposed]).toEqual([true, true, 1]);
  expect(vi.mocked(openOutput)).toHaveBeenCalledWith(out, ["/base", "/a", "/b"], false);
});

test("data are synthetic where one task's are", async () => {
  const [first, second] = inputs.tasks;
  inputs = { ...inputs, tasks: [{ ...first!, synthetic: false }, second!] };
  expect((await compare()).synthetic).toBe(true);
  inputs = { ...inputs, tasks: inputs.tasks.map((task) => ({ ...task, synthetic: false })) };
  expect((await compare()).synthetic).toBe(false);
});

test("whoever watches is told what is run, and what it came to", async () => {
  const { notes } = await compare();
  expect(notes).toEqual([
    "average 0/2",
    "average: 62.5 % on average, 2.3 s; 1 of 2 methods, about 2 s left",
    "ties 1/2",
    "ties: 62.5 % on average, 2.3 s; 2 of 2 methods",
  ]);
});

test("files: what is compared, each result, a table, and last everything with its settings", async () => {
  run.mockImplementation((_, { name }) =>
    Promise.resolve(
      result(name, name === "ties" ? { search: [{ values: { lambda: 0.3 }, accuracy: 1, loss: 0 }] } : {}),
    ),
  );
  const { out, rows, times } = await compare({ given: { seed: 3 } });
  expect(await json(out, "compare.json")).toMatchObject({ methods: ["average", "ties"] });
  expect((await json(out, "compare.json"))["version"]).toMatch(/^\d+\.\d+/);
  expect(await json(out, "methods", "ties.json")).toMatchObject({
    identity: identities()[1],
    rows: rows.slice(-2),
  });
  expect(await json(out, "results.json")).toEqual({
    synthetic: true,
    rows,
    times,
    search: { ties: [{ values: { lambda: 0.3 }, accuracy: 1, loss: 0 }] },
    settings: {
      tasks: ["a", "b"],
      seed: 3,
      valPerTask: 8,
      maxLength: 16,
      dtype: "auto",
      split: "files",
      score: "sum",
      engine: "cpu",
    },
    inputs: inputs.hashes,
  });
  const table = await readFile(join(out, "table.md"), "utf8");
  expect(table).toContain("average");
  expect(table).toMatch(/2\.3 \|\n$/);
});

test("a model is kept where that is asked for, and gone otherwise", async () => {
  const models = async (keep: boolean) => {
    const { out } = await compare({ keep });
    return (await readdir(join(out, "models"))).sort();
  };
  expect(await models(true)).toEqual(["average", "ties"]);
  expect(await models(false)).toEqual([]);
});

test("what is done is not done again, and comes to the same", async () => {
  const first = await compare();
  run.mockClear();
  const second = await compare({ out: first.out, methods: ["ties", "average", "dare"] });
  expect(second.ran).toEqual(["dare"]);
  expect(second.rows.slice(4, 8)).toEqual([...first.rows.slice(6, 8), ...first.rows.slice(4, 6)]);
  expect(second.notes).toContain("ties: 62.5 % on average, 2.3 s; 1 of 3 methods, about 5 s left");
});

test("a result of other settings or inputs is made anew, and so is one that is damaged", async () => {
  const { out } = await compare({ methods: ["ties"] });
  const again = async (changed: Partial<CompareOptions> = {}) => {
    run.mockClear();
    return (await compare({ methods: ["ties"], out, ...changed })).ran;
  };
  expect(await again()).toEqual([]);
  await expect(again({ seed: 4 }), "a finished one of other settings is not written over").rejects.toThrow(
    /holds a result of ties by other settings, inputs \(.*\) or another version; --overwrite replaces it/,
  );
  expect(await again()).toEqual([]);
  expect(await again({ seed: 4, overwrite: true })).toEqual(["ties"]);
  await writeFile(join(out, "methods", "ties.json"), "{");
  expect(await again({ seed: 4 })).toEqual(["ties"]);
  await rm(join(out, "methods", "ties.json"));
  expect(await again({ seed: 4 })).toEqual(["ties"]);
});

test("a stale result is gone before its method is run: a run that breaks leaves none", async () => {
  const { out } = await compare({ methods: ["ties"] });
  run.mockRejectedValueOnce(new Error("broken"));
  await expect(compare({ methods: ["ties"], out, seed: 4, overwrite: true })).rejects.toThrow("broken");
  expect(existsSync(join(out, "methods", "ties.json"))).toBe(false);
  expect(disposed, "the inputs are closed all the same").toBe(2);
});

/** Two names for one training. */
const twins: Candidate[] = ["one", "two"].map((name) => ({ name, settings: { gate: "clamp" } }));

test("what was trained alike under another name is not trained again, unless its model must be there", async () => {
  const { ran, rows } = await compare({ methods: twins });
  expect(ran).toEqual(["one"]);
  expect(rows.slice(4).map(({ method }) => method)).toEqual(["one", "one", "two", "two"]);
  run.mockClear();
  expect((await compare({ methods: twins, keep: true })).ran).toEqual(["one", "two"]);
});

test("other files among the results are none", async () => {
  const { out } = await compare({ methods: [twins[0]!] });
  await writeFile(join(out, "methods", "one.started"), "x");
  await writeFile(join(out, "methods", "a.json"), JSON.stringify({ identity: "another" }));
  run.mockClear();
  expect((await compare({ methods: [twins[1]!], out })).ran).toEqual([]);
});

test("a model that must be kept is made again where it is gone, and found where it is", async () => {
  const { out } = await compare({ methods: ["ties"], keep: true });
  const again = async () => {
    run.mockClear();
    return (await compare({ methods: ["ties"], keep: true, out })).ran;
  };
  expect(await again()).toEqual([]);
  await rm(join(out, "models", "ties"), { recursive: true });
  expect(await again()).toEqual(["ties"]);
});

const gated = (gate: string): Candidate => ({ name: "mine", settings: { gate } });
const tree = (fanIn: number): Candidate => ({ name: "mine", tree: { fanIn } });
const given = (more: object): Candidate => ({ name: "mine", method: findMethod("ties"), ...more });

test.each<[string, Partial<CompareOptions>, Partial<CompareOptions>]>([
  ["the seed", {}, { seed: 4 }],
  ["how many examples validate", {}, { valPerTask: 9 }],
  ["where texts are cut", {}, { maxLength: 17 }],
  ["the tasks", {}, { tasks: ["b", "a"] }],
  ["how numbers are written", {}, { dtype: "F32" }],
  ["the split", {}, { split: "paper" }],
  ["how answers are scored", {}, { score: "mean" }],
  ["whether parameters are searched", {}, { search: true }],
  ["the method", {}, { methods: ["dare"] }],
  ["tasks that are held out", {}, { heldOut: ["c"] }],
  ["values that are given", { methods: [given({})] }, { methods: [given({ given: { lambda: 1 } })] }],
  ["what is searched", { methods: [given({})] }, { methods: [given({ grid: { lambda: [1] } })] }],
  ["a training's settings", { methods: [gated("clamp")] }, { methods: [gated("tanh")] }],
  [
    "what the user gave to a training",
    { methods: [gated("tanh")] },
    { methods: [gated("tanh")], given: { lr: 1 } },
  ],
  [
    "that it is a tree",
    { methods: [{ name: "mine", settings: {} }] },
    { methods: [{ name: "mine", tree: {} }] },
  ],
  ["a tree's shape", { methods: [tree(2)] }, { methods: [tree(3)] }],
])("numbers depend on it: %s", async (_, one, other) => {
  expect(await identityWith(one)).not.toBe(await identityWith(other));
});

test.each<[string, Partial<CompareOptions>, Partial<CompareOptions>]>([
  ["which methods stand beside it", {}, { methods: ["ties", "average"] }],
  ["whether models are kept", {}, { keep: true }],
  ["threads", {}, { threads: 2 }],
  ["what only trainings look at", {}, { given: { lr: 1 }, lr: 1 }],
  ["what a training is called", { methods: [twins[0]!] }, { methods: [twins[1]!] }],
  ["whether others are searched", { methods: [gated("tanh")] }, { methods: [gated("tanh")], search: true }],
])("numbers do not depend on it: %s", async (_, one, other) => {
  expect(await identityWith(one)).toBe(await identityWith(other));
});

test("numbers depend on the inputs' bytes and on the engine", async () => {
  const before = await identityWith({});
  inputs = { ...inputs, hashes: [{ ...inputs.hashes[0]!, sha256: "1" }] };
  const other = await identityWith({});
  expect(other).not.toBe(before);
  inputs = { ...inputs, plan: { ...inputs.plan, engine: "wasm" } };
  expect(await identityWith({})).not.toBe(other);
});

test("a candidate is run with all that it may need", async () => {
  await compare({ methods: ["ties"], search: true, threads: 2, given: { seed: 3 }, keep: true });
  const [context, candidate] = run.mock.calls[0]!;
  expect(candidate).toEqual({ name: "ties", method: findMethod("ties") });
  expect(context).toMatchObject({ inputs, search: true, threads: 2, given: { seed: 3 } });
  expect(context.recipe.name).toBe("toy-a+b");
  expect(context.options).not.toHaveProperty("methods");
  expect(context.options).toMatchObject(toyOptions());
});

test("all: every method that merges so many models; who is left out is said", async () => {
  const { ran, notes } = await compare({ methods: "all" });
  expect(ran).toContain("hierarchical");
  expect(ran).toContain("slerp");
  expect(ran).not.toContain("passthrough");
  expect(notes[0]).toBe("left out: nearswap, arcee-fusion, passthrough, which do not merge 2 models");
  // A name by itself is looked up as well, and candidates of one's own are taken as they are.
  run.mockClear();
  const mixed = await compare({ methods: ["passthrough", given({ name: "own" }), "average"] });
  expect(mixed.ran).toEqual(["own", "average"]);
  await expect(compare({ methods: ["avrage"] })).rejects.toThrow('(did you mean "average"?)');
});

test("who is asked to stop runs nothing further; what was done stands", async () => {
  let asked = 0;
  const stopped = await compare({}, { stopping: () => ++asked > 1 });
  expect([stopped.finished, stopped.ran, disposed]).toEqual([false, ["average"], 1]);
  expect(stopped.rows.at(-1)!.method).toBe("average");
  expect(existsSync(join(stopped.out, "results.json"))).toBe(false);
});

test("a candidate that was stopped leaves no result, and the comparison ends there", async () => {
  run.mockResolvedValueOnce(result("average")).mockResolvedValueOnce(undefined);
  const stopped = await compare({ methods: ["average", "ties", "dare"] });
  expect([stopped.finished, stopped.ran]).toEqual([false, ["average", "ties"]]);
  expect(await readdir(join(stopped.out, "methods"))).toEqual(["average.json"]);
  run.mockRejectedValueOnce(new Stopped("stopped"));
  const thrown = await compare();
  expect([thrown.finished, disposed]).toEqual([false, 2]);
  expect(thrown.rows).toHaveLength(4);
});

test("tasks that are held out are tested on what was written, before it goes", async () => {
  vi.mocked(heldOutHashes).mockResolvedValue([
    { role: "h, held out, data", file: "test.jsonl", sha256: "2" },
  ]);
  vi.mocked(measureHeldOut).mockImplementation(({ out }, method, tasks) => {
    expect(existsSync(join(out, "models", method))).toBe(true);
    return Promise.resolve(tasks.map((task) => row(method, task, 0.125)));
  });
  const { rows, out } = await compare({ methods: ["ties"], heldOut: ["h"] });
  expect(rows.slice(4).map(({ task, value }) => [task, value])).toEqual([
    ["a", 0.5],
    ["b", 0.75],
    ["h", 0.125],
  ]);
  expect((await json(out, "results.json"))["inputs"]).toHaveLength(2);
  const [of, , tasks] = vi.mocked(heldOutHashes).mock.calls.at(-1)!;
  expect([of, tasks]).toEqual([inputs, ["h"]]);
  vi.mocked(measureHeldOut).mockClear();
  await compare({ methods: ["ties"], heldOut: [] });
  await compare({ methods: ["ties"] });
  expect(measureHeldOut).not.toHaveBeenCalled();
  expect(vi.mocked(heldOutHashes).mock.calls.at(-1)![2]).toEqual([]);
});

test("where nobody says, it goes to merged/, by what is compared", async () => {
  vi.mocked(openOutput).mockRejectedValueOnce(new Error("seen"));
  await expect(
    runComparison(
      { ...toyOptions(), methods: [], search: false, keep: false, given: {} },
      { note: () => {}, progress: () => {}, step: () => {}, stopping: () => false },
    ),
  ).rejects.toThrow("seen");
  expect(vi.mocked(openOutput).mock.calls.at(-1)![0]).toBe(join("merged", "compare-toy-a+b"));
});
