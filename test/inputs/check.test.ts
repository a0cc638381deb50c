import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { labelOrder } from "../../src/inputs/prepare.js";
import { locate } from "../../src/inputs/locate.js";
import { beginRun, openOutput, openScratch, removeScratch } from "../../src/folder/output.js";
import { rte, temporaryFolder } from "../helpers.js";

const folder = await temporaryFolder();

test("labels are matched by name, whatever their order in the expert", () => {
  expect(labelOrder({ label2id: { entailment: 0, not_entailment: 1 } }, rte)).toEqual([0, 1]);
  expect(labelOrder({ label2id: { NOT_entailment: 0, Entailment: 1 } }, rte)).toEqual([1, 0]);
  expect(labelOrder({ label2id: { LABEL_0: 0, LABEL_1: 1 } }, rte)).toBeUndefined();
  expect(labelOrder({}, rte)).toBeUndefined();
});

test.each([
  { entailment: 0, not_entailment: 0 },
  { entailment: 0, not_entailment: 7 },
  { entailment: 0, not_entailment: "x" },
  { "not entailment": 0, entail: 1 },
])("labels that name no order are refused: %j", (label2id) => {
  expect(() => labelOrder({ label2id }, rte)).toThrow(/give them the same names in label2id/);
});

test("experts: one folder for all, or task=FOLDER; an equals sign in a path is no task", async () => {
  for (const name of ["base", "all/rte", "all/cb", "lr=3e-5/rte"])
    await mkdir(join(folder, name), { recursive: true });
  const of = async (experts: string[], tasks = ["rte"]) =>
    (await locate({ base: join(folder, "base"), experts, tasks })).sources.map(({ folder }) => folder);
  expect(await of([join(folder, "all")], ["rte", "cb"])).toEqual([
    join(folder, "all", "rte"),
    join(folder, "all", "cb"),
  ]);
  expect(await of([join(folder, "lr=3e-5")])).toEqual([join(folder, "lr=3e-5", "rte")]);
  expect(await of([`rte=${join(folder, "lr=3e-5", "rte")}`])).toEqual([join(folder, "lr=3e-5", "rte")]);
  await expect(of(["rte=a", "rte=b"])).rejects.toThrow(/names a task twice/);
  await expect(of(["rte=a", "foo=b"])).rejects.toThrow(/--experts foo=b: it names none of rte/);
  await expect(of([`rte=${join(folder, "base")}`])).rejects.toThrow(/is the base itself/);
});

test("a run's working folders that a kill left are cleared away by the next; others of that name are not", async () => {
  const killed = join(folder, "killed");
  const scratch = await openScratch(killed, "treated");
  await mkdir(join(scratch, "rte"));
  await openOutput(killed, []);
  expect(await readdir(killed)).toEqual([]);
  // What is left where the clearing away was killed itself: the mark goes last, and then there is nothing.
  const again = await openScratch(killed, "products");
  await mkdir(join(again, "half"));
  await removeScratch(again);
  expect(await readdir(killed)).toEqual([]);
  await mkdir(join(killed, "treated"));
  await openOutput(killed, []);
  expect(await readdir(killed)).toEqual([]);
  const named = join(folder, "named");
  await mkdir(join(named, "treated"), { recursive: true });
  await writeFile(join(named, "treated", "notes.txt"), "mine");
  await expect(openOutput(named, [])).rejects.toThrow(/was not written by train-merge/);
  expect(await readdir(join(named, "treated"))).toEqual(["notes.txt"]);
});

test("only a folder of ours, and no input, is written over", async () => {
  const theirs = join(folder, "theirs");
  await mkdir(theirs);
  await writeFile(join(theirs, "results.json"), '{"eval_accuracy": 0.9}');
  await expect(openOutput(theirs, [])).rejects.toThrow(/was not written by train-merge/);
  await expect(openOutput(join(folder, "base"), [join(folder, "base")])).rejects.toThrow(/it is the input/);
  const ours = join(folder, "ours");
  await openOutput(ours, []);
  for (const file of ["results.json", "README.md"])
    await writeFile(join(ours, file), '{"rows":[],"search":{},"settings":{}}');
  await writeFile(join(ours, "model.safetensors.0a1b2c3d.tmp"), "");
  await expect(openOutput(ours, [])).rejects.toThrow(/it holds a finished result; --overwrite replaces it/);
  await openOutput(ours, [], true);
  await beginRun(ours, () => writeFile(join(ours, "state.json"), '{"identity":{},"raw":{},"moments":{}}'));
  expect(await readdir(ours)).toEqual(["state.json"]);
  await openOutput(ours, []);
});
