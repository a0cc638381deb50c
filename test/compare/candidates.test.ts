import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, expect, test, vi } from "vitest";
import {
  candidates,
  candidatesOf,
  modelFolder,
  runCandidate,
  seenBy,
  settingsOf,
  type Candidate,
  type CompareContext,
} from "../../src/compare/candidates.js";
import { searchGrid } from "../../src/compare/search.js";
import type { MergeHooks, MergeOptions } from "../../src/config/options.js";
import { UserError } from "../../src/errors.js";
import { writeMerge } from "../../src/folder/merge.js";
import type { Inputs } from "../../src/inputs/open.js";
import { statisticsFor } from "../../src/mergers/statistics.js";
import { findMethod } from "../../src/methods/index.js";
import type { ResultRow } from "../../src/report/rows.js";
import { evaluateFolder } from "../../src/run/evaluate.js";
import { trainMerge } from "../../src/run/merge.js";
import { mergeTree } from "../../src/treerun/run.js";
import { temporaryFolder } from "../helpers.js";
import { toyOptions } from "./toy-inputs.js";

/** How a candidate is run: with which values, in which folder, and what of it is reported. What merges is mocked. */
vi.mock("../../src/compare/search.js", () => ({ searchGrid: vi.fn() }));
vi.mock("../../src/folder/merge.js", () => ({ writeMerge: vi.fn() }));
vi.mock("../../src/mergers/statistics.js", () => ({ statisticsFor: vi.fn() }));
vi.mock("../../src/run/evaluate.js", () => ({ evaluateFolder: vi.fn() }));
vi.mock("../../src/run/merge.js", () => ({ trainMerge: vi.fn() }));
vi.mock("../../src/treerun/run.js", () => ({ mergeTree: vi.fn() }));

const folder = await temporaryFolder();
const row = (method: string, value = 0.5): ResultRow => ({
  method,
  task: "a",
  split: "test",
  metric: "accuracy",
  value,
  n: 4,
  seed: 3,
});
const inputs = {
  family: { base: "the base", experts: ["expert of a", "expert of b"] },
  head: "names of heads",
  heads: ["head of a", "head of b"],
  data: "/data",
  plan: { chosen: "a placement" },
  plain: "a model",
  tasks: ["task a", "task b"],
  hashes: "hashes",
  locations: { base: "/base" },
} as unknown as Inputs;
let notes: string[] = [];
const hooks: MergeHooks = {
  note: (message) => void notes.push(message),
  progress: (phase, done, of) => void notes.push(`${phase} ${done}/${of}`),
  step: () => {},
  stopping: () => false,
};
let made = 0;
const contextOf = (changed: Partial<CompareContext> = {}): CompareContext => ({
  out: join(folder, String(made++)),
  inputs,
  recipe: "a recipe" as never,
  options: toyOptions(),
  search: false,
  threads: 2,
  given: {},
  hooks,
  ...changed,
});
const plain = (method: string, more: object = {}): Candidate => ({
  name: "mine",
  method: findMethod(method),
  ...more,
});
const run = (context: CompareContext, candidate: Candidate, identity = "identity") =>
  runCandidate(context, candidate, identity);
const wait = (milliseconds: number) => new Promise<void>((resolve) => setTimeout(resolve, milliseconds));

beforeEach(() => {
  notes = [];
  vi.mocked(statisticsFor)
    .mockReset()
    .mockResolvedValue("statistics" as never);
  vi.mocked(searchGrid).mockReset();
  vi.mocked(writeMerge).mockReset().mockResolvedValue(undefined);
  vi.mocked(evaluateFolder)
    .mockReset()
    .mockResolvedValue({ rows: [row("mine")] } as never);
  vi.mocked(trainMerge).mockReset();
  vi.mocked(mergeTree).mockReset();
});

test("candidates: every method, every training and the tree, each by its name", () => {
  const names = candidates.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  for (const [name, what] of [
    ["average", "method"],
    ["supermerge", "settings"],
    ["adamerging", "settings"],
    ["hierarchical", "tree"],
  ] as const)
    expect(candidates.find((one) => one.name === name)).toHaveProperty(what);
});

test("who does not merge so many models is left out, and said", () => {
  const of = (models: number, asked: readonly string[]) =>
    candidatesOf(asked, models, hooks.note).map(({ name }) => name);
  const asked = ["slerp", "model-stock", "average", "passthrough", "supermerge"];
  expect(of(1, asked)).toEqual(["average", "passthrough", "supermerge"]);
  expect(of(2, asked)).toEqual(["slerp", "model-stock", "average", "supermerge"]);
  expect(of(3, asked)).toEqual(["model-stock", "average", "supermerge"]);
  expect(notes).toEqual([
    "left out: slerp, model-stock, which do not merge 1 models",
    "left out: passthrough, which do not merge 2 models",
    "left out: slerp, passthrough, which do not merge 3 models",
  ]);
  notes = [];
  expect(of(3, ["ties"])).toEqual(["ties"]);
  expect(notes).toEqual([]);
  expect(candidatesOf("all", 1, hooks.note).length).toBeGreaterThan(20);
});

test("an unknown name is refused, with the nearest and with all that there are", () => {
  const refused = () => candidatesOf(["average", "tie"], 2, hooks.note);
  expect(refused).toThrow(UserError);
  expect(refused).toThrow(
    '--methods tie: there is no such method (did you mean "ties"?); there are average, linear, task-arithmetic, ',
  );
  expect(refused).toThrow(/, hierarchical$/);
});

test("a method without training: merged with its customary values, and measured where it was written", async () => {
  const context = contextOf();
  vi.mocked(writeMerge).mockImplementation(() => wait(20));
  vi.mocked(statisticsFor).mockImplementation(async () => {
    await wait(30);
    return "statistics" as never;
  });
  const found = await run(context, plain("ties"));
  const out = modelFolder(context, "mine");
  expect(out).toBe(join(context.out, "models", "mine"));
  const [into, merge, watching] = vi.mocked(writeMerge).mock.calls[0]!;
  expect(into).toBe(out);
  expect(merge).toMatchObject({
    base: "the base",
    inputs: ["expert of a", "expert of b"],
    dtype: "auto",
    shardSize: 1000,
    threads: 2,
    statistics: "statistics",
    heads: { members: ["head of a", "head of b"], names: "names of heads" },
  });
  expect(merge.method.name).toBe("ties");
  expect(found!.values).toBe(merge.values);
  expect(merge.values).toHaveProperty("lambda");
  watching.note("which tensors are taken over");
  watching.progress("merge", 1, 2);
  expect(notes).toEqual(["merge 1/2"]);
  expect(evaluateFolder).toHaveBeenCalledWith(
    { ...context.options, folder: out, base: "/base", data: "/data", placement: "a placement" },
    "mine",
  );
  expect(found!.rows).toEqual([row("mine")]);
  expect(found).not.toHaveProperty("search");
  expect(searchGrid).not.toHaveBeenCalled();
  const { merge: alone, total } = found!.seconds;
  // All of it, statistics too; and the merge alone. Timers may be a little early.
  expect(alone).toBeGreaterThan(0.015);
  expect(alone).toBeLessThan(10);
  expect(total).toBeGreaterThan(alone + 0.02);
  expect(total).toBeLessThan(10);
});

test("statistics are those of every expert on its own task", async () => {
  await run(contextOf(), plain("fisher"));
  const [method, what] = vi.mocked(statisticsFor).mock.calls[0]!;
  expect(method.name).toBe("fisher");
  expect(what).toEqual({
    model: "a model",
    hashes: "hashes",
    subjects: [
      { member: "expert of a", task: "task a" },
      { member: "expert of b", task: "task b" },
    ],
  });
});

test("values that are given stand; the seed of all is a method's own, where it draws", async () => {
  const valuesOf = async (method: string, given?: object) =>
    (await run(contextOf(), plain(method, { given })))!.values;
  expect(await valuesOf("ties", { lambda: 0.7 })).toMatchObject({ lambda: 0.7 });
  expect(await valuesOf("dare")).toMatchObject({ seed: 3 });
  expect(await valuesOf("dare", { seed: 9 })).toMatchObject({ seed: 9 });
  await expect(valuesOf("average", { nothing: 1 })).rejects.toThrow("average has no such parameter");
});

const point = (lambda: number, accuracy: number) => ({ values: { lambda }, accuracy, loss: 1 });

test("a search tries the grid beside the output, and its best point is merged", async () => {
  const points = [point(0.3, 0.5), point(0.6, 0.9), point(0.9, 0.7)];
  vi.mocked(searchGrid).mockResolvedValue(points);
  const context = contextOf({ search: true });
  const found = await run(context, plain("ties", { grid: { dareP: [0.1, 0.9] } }));
  expect(found!.search).toBe(points);
  expect(found!.values).toMatchObject({ lambda: 0.6 });
  const [where, what, from] = vi.mocked(searchGrid).mock.calls[0]!;
  expect(where).toBe(join(context.out, "trying"));
  expect(what.method.grid).toEqual({ ...findMethod("ties").grid, dareP: [0.1, 0.9] });
  expect(what.given).toEqual({ seed: 3 });
  expect(what.merge.inputs).toEqual(["expert of a", "expert of b"]);
  expect(from).toBe(inputs);
});

test("nothing is searched where nobody asks, the method has no grid, or all of it is given", async () => {
  vi.mocked(searchGrid).mockResolvedValue([point(0.5, 1)]);
  const searched = async (candidate: Candidate, search = true) => {
    vi.mocked(searchGrid).mockClear();
    await run(contextOf({ search }), candidate);
    return vi.mocked(searchGrid).mock.calls.length > 0;
  };
  expect(await searched(plain("ties"), false)).toBe(false);
  expect(await searched(plain("average"))).toBe(false);
  expect(await searched(plain("ties", { given: { lambda: 0.1 } }))).toBe(false);
  expect(await searched(plain("ties", { given: { lambda: 0.1 }, grid: { dareP: [0.1] } }))).toBe(true);
  expect(await searched(plain("ties"))).toBe(true);
});

/** A training that leaves what a real one leaves. */
function trains({
  finished = true,
  seconds = { train: 4, total: 6 },
}: { finished?: boolean; seconds?: Record<string, number> | null } = {}) {
  const train = async ({ out }: { out?: string | undefined }) => {
    await mkdir(out!, { recursive: true });
    const run = { version: "1", engine: "cpu", platform: "x", ...(seconds && { seconds }) };
    await writeFile(join(out!, "run.json"), JSON.stringify(run));
    const rows = [row("individual", 0.9), row("average", 0.8), row("supermerge", 0.7)];
    return { out: out!, rows, synthetic: false, finished };
  };
  vi.mocked(trainMerge).mockImplementation(train);
  vi.mocked(mergeTree).mockImplementation(train);
}
const training = (settings: object = { gate: "clamp" }): Candidate => ({
  name: "mine",
  settings: { ...settings },
});

test("a training: its own settings, nothing beside it, and of its rows the last method's, under its name", async () => {
  trains();
  const context = contextOf();
  const found = await run(context, training());
  const [settings, watching, recipe] = vi.mocked(trainMerge).mock.calls[0]!;
  expect(settings).toEqual({
    ...context.options,
    gate: "clamp",
    out: modelFolder(context, "mine"),
    baselines: false,
    overwrite: true,
    resume: false,
  });
  expect(recipe).toBe("a recipe");
  watching.note("nothing");
  watching.progress("training", 1, 2);
  expect(notes).toEqual(["training 1/2"]);
  expect(found!.rows).toEqual([row("mine", 0.7)]);
  expect(found!.values).toEqual({ gate: "clamp" });
  expect(found!.seconds.merge).toBe(4);
  expect(found!.seconds.total).toBeGreaterThan(0);
  expect(found!.seconds.total).toBeLessThan(4);
  expect(mergeTree).not.toHaveBeenCalled();
});

test("its seconds are those of training, else of the whole run, else what it took here", async () => {
  const secondsOf = async (seconds: Record<string, number> | null) => {
    trains({ seconds });
    return (await run(contextOf(), training()))!.seconds;
  };
  expect((await secondsOf({ total: 6 })).merge).toBe(6);
  const none = await secondsOf({});
  expect(none.merge).toBe(none.total);
  const unsaid = await secondsOf(null);
  expect(unsaid.merge).toBe(unsaid.total);
});

test("a training that was stopped comes to nothing", async () => {
  trains({ finished: false });
  expect(await run(contextOf(), training())).toBeUndefined();
});

test("a tree: pairs by similarity, in this process, unless it says otherwise", async () => {
  trains();
  const context = contextOf();
  await run(context, { name: "mine", tree: { fanIn: 3 }, settings: { gate: "clamp" } });
  const [settings, tree, watching] = vi.mocked(mergeTree).mock.calls[0]!;
  expect(settings).toMatchObject({ gate: "clamp", out: modelFolder(context, "mine"), baselines: false });
  expect(tree).toEqual({
    fanIn: 3,
    by: "similarity",
    jobs: 1,
    polish: 0,
    keepNodes: false,
    nodeMethod: "supermerge",
    executor: "local",
    slurmOptions: [],
  });
  watching.note("nothing");
  expect(notes).toEqual([]);
  expect(trainMerge).not.toHaveBeenCalled();
  await run(contextOf(), { name: "mine", tree: {} });
  expect(vi.mocked(mergeTree).mock.calls[1]![1]).toMatchObject({ fanIn: 2 });
});

/** What a training finds that was begun before, by this identity or another. */
async function goesOn(left: { mark?: string; files: readonly string[] }) {
  trains();
  const context = contextOf();
  const out = modelFolder(context, "mine");
  await mkdir(out, { recursive: true });
  await mkdir(join(context.out, "methods"), { recursive: true });
  for (const file of left.files) await writeFile(join(out, file), "{}");
  const mark = join(context.out, "methods", "mine.started");
  if (left.mark !== undefined) await writeFile(mark, left.mark);
  let found: boolean | undefined;
  vi.mocked(trainMerge).mockImplementationOnce(() => {
    found = existsSync(join(out, "state.json"));
    return Promise.resolve({ out, rows: [], synthetic: false, finished: false });
  });
  await run(context, training(), "mine");
  expect(await readFile(mark, "utf8")).toBe("mine");
  return { resume: vi.mocked(trainMerge).mock.calls.at(-1)![0].resume, found };
}

test("a training goes on from a state of its own alone; what another one left is gone", async () => {
  expect(await goesOn({ mark: "mine", files: ["state.json"] })).toEqual({ resume: true, found: true });
  expect(await goesOn({ mark: "another", files: ["state.json"] })).toEqual({ resume: false, found: false });
  expect(await goesOn({ files: ["state.json"] })).toEqual({ resume: false, found: false });
});

test("…and not where there is none, or where it had come to its end", async () => {
  expect(await goesOn({ mark: "mine", files: [] })).toEqual({ resume: false, found: false });
  expect(await goesOn({ mark: "mine", files: ["state.json", "results.json"] })).toEqual({
    resume: false,
    found: true,
  });
});

const preset = { gate: "tanh", lr: 0.03, init: "search", holdout: 0.25 } as MergeOptions;
const settingsFor = (settings: Record<string, unknown>, given: Record<string, unknown> = {}) =>
  settingsOf({ name: "it", settings }, { options: { ...preset, ...given }, given });

test("what is said of a training, and is so anyway, makes no difference", () => {
  expect(settingsFor({ gate: "tanh", init: "search" })).toEqual(settingsFor({}));
  expect(settingsFor({ gate: "clamp" })).toEqual({ gate: "clamp" });
  // What the user gave is what it is compared with; what makes a candidate what it is stays.
  expect(settingsFor({ gate: "clamp" }, { gate: "clamp" })).toEqual({});
  expect(settingsFor({ gate: "tanh" }, { gate: "clamp" })).toEqual({ gate: "tanh" });
});

test("a method's own settings give way to what the user gave, and to the candidate's", () => {
  expect(settingsFor({ method: "adamerging" })).toMatchObject({
    method: "adamerging",
    gate: "clamp",
    lr: 0.001,
    holdout: 0,
  });
  expect(settingsFor({ method: "adamerging" }, { lr: 0.1 })).not.toHaveProperty("lr");
  expect(settingsFor({ method: "adamerging", gate: "tanh" })).not.toHaveProperty("gate");
  expect(settingsFor({ method: "adamerging", variant: "fusion_bench" })).toMatchObject({ gate: "identity" });
});

test("what a candidate sees of the data: labels where a grid is searched, else what it learns from", () => {
  const named = (name: string) => candidates.find((one) => one.name === name)!;
  const seen = (candidate: Candidate, search = true) =>
    seenBy(candidate, {
      options: toyOptions({ loss: "cross-entropy", adaptOn: "validation" }),
      given: {},
      search,
    });
  const ties = named("ties");
  expect([seen(ties), seen(ties, false)]).toEqual(["labels, to search", "nothing"]);
  expect(seen({ name: "fixed", method: findMethod("ties"), given: { lambda: 1 } })).toBe("nothing");
  expect(seen(named("average"))).toBe("nothing");
  expect([seen(named("regmean")), seen(named("regmean"), false)]).toEqual(["labels, to search", "inputs"]);
  expect(seen(named("fisher"))).toBe("inputs");
  expect(seen(named("supermerge"))).toBe("labels");
  expect(seen(named("supermerge-distillation"))).toBe("inputs");
  expect([seen(named("adamerging")), seen(named("adamerging@test"))]).toEqual(["inputs", "test inputs"]);
});
