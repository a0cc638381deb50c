import { createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, expect, test, vi } from "vitest";
import { openExpert } from "../../src/checkpoint/family.js";
import type { CompareContext } from "../../src/compare/candidates.js";
import { heldOutHashes, measureHeldOut } from "../../src/compare/held-out.js";
import { writeHead } from "../../src/folder/output.js";
import { locate } from "../../src/inputs/locate.js";
import type { Inputs } from "../../src/inputs/open.js";
import { evaluateFolder } from "../../src/run/evaluate.js";
import { temporaryFolder } from "../helpers.js";
import { toyOptions } from "./toy-inputs.js";

/** Tests on tasks that had no part in a merge: what they depend on, and whose heads the merge is given. */
vi.mock("../../src/checkpoint/family.js", async (original) => ({
  ...(await original<object>()),
  openExpert: vi.fn(),
}));
vi.mock("../../src/compare/candidates.js", () => ({
  modelFolder: ({ out }: { out: string }, name: string) => join(out, "models", name),
}));
vi.mock("../../src/folder/output.js", () => ({ openOutput: vi.fn(), writeHead: vi.fn() }));
vi.mock("../../src/inputs/locate.js", async (original) => ({
  ...(await original<object>()),
  locate: vi.fn(),
}));
vi.mock("../../src/run/evaluate.js", () => ({ evaluateFolder: vi.fn() }));

const root = await temporaryFolder();
const data = join(root, "data");
const sha = (text: string) => createHash("sha256").update(text).digest("hex");
const lines = (first: string) => `{"text_a":"${first}","text_b":"b","label":0}\n`.repeat(3);
for (const task of ["rte", "cb"]) {
  await mkdir(join(data, task), { recursive: true });
  await writeFile(join(data, task, "validation.jsonl"), lines("validation"));
  await writeFile(join(data, task, "test.jsonl"), lines(task));
  await mkdir(join(root, "experts", task), { recursive: true });
  for (const file of ["config.json", "model.safetensors"])
    await writeFile(join(root, "experts", task, file), `${file} of ${task}`);
}
const test1 = (task: string) => ({
  role: `${task}, held out, data`,
  file: "test.jsonl",
  sha256: sha(lines(task)),
});

const base = { label: "base", checkpoint: { close: () => Promise.reject(new Error("the base stays open")) } };
const head = { weight: "classifier.weight" };
const canonical = (name: string) => name;
const inputsOf = (heads: boolean) =>
  ({
    family: { base },
    head: heads ? head : undefined,
    canonical,
    data,
    plan: { chosen: "a placement" },
    locations: { base: "/base" },
  }) as unknown as Inputs;
const options = toyOptions({ valPerTask: 2, experts: [join(root, "experts")], base: "/base" });

let open: string[] = [];
const expertOf = (label: string) => ({
  label,
  actual: { has: () => true },
  checkpoint: {
    folder: join(root, "experts", label),
    files: ["config.json", "model.safetensors"],
    close: async () => void (open = open.filter((one) => one !== label)),
  },
});
beforeEach(() => {
  open = [];
  vi.mocked(writeHead).mockReset().mockResolvedValue(undefined);
  vi.mocked(evaluateFolder)
    .mockReset()
    .mockResolvedValue({ rows: ["the rows"] } as never);
  vi.mocked(locate)
    .mockReset()
    .mockImplementation(({ tasks }) =>
      Promise.resolve({ sources: tasks.map((task) => ({ folder: join(root, "experts", task) })) } as never),
    );
  vi.mocked(openExpert)
    .mockReset()
    .mockImplementation(({ label }) => {
      open.push(label);
      return Promise.resolve(expertOf(label) as never);
    });
});

test("without heads, they depend on the tasks' test data alone", async () => {
  expect(await heldOutHashes(inputsOf(false), options, ["cb", "rte"])).toEqual([test1("cb"), test1("rte")]);
  expect(locate).not.toHaveBeenCalled();
  expect(await heldOutHashes(inputsOf(true), options, [])).toEqual([]);
});

test("with heads, on every file of the tasks' experts too, which are closed again", async () => {
  const head1 = (task: string) =>
    ["config.json", "model.safetensors"].map((file) => ({
      role: `${task}, held out, head`,
      file,
      sha256: sha(`${file} of ${task}`),
    }));
  expect(await heldOutHashes(inputsOf(true), options, ["cb", "rte"])).toEqual([
    test1("cb"),
    ...head1("cb"),
    test1("rte"),
    ...head1("rte"),
  ]);
  expect(open).toEqual([]);
  // The experts are looked for where the user has them.
  expect(locate).toHaveBeenCalledWith({ ...options, tasks: ["cb", "rte"] });
  expect(openExpert).toHaveBeenCalledWith(
    { label: "cb", folder: join(root, "experts", "cb") },
    base,
    canonical,
    options,
  );
  await expect(heldOutHashes(inputsOf(true), options, ["rtee"])).rejects.toThrow('(did you mean "rte"?)');
});

const measured = (heads: boolean) =>
  measureHeldOut({ out: "/out", inputs: inputsOf(heads), options } as unknown as CompareContext, "ties", [
    "cb",
    "rte",
  ]);

test("a merge is given the head of each task's own expert, and measured on these tasks where it lies", async () => {
  vi.mocked(writeHead).mockImplementation((_, { label }) => {
    expect(open, "open while it is read").toEqual([label]);
    return Promise.resolve();
  });
  expect(await measured(true)).toEqual(["the rows"]);
  const folder = join("/out", "models", "ties");
  expect(vi.mocked(writeHead).mock.calls.map(([into, { label }, names]) => [into, label, names])).toEqual([
    [folder, "cb", head],
    [folder, "rte", head],
  ]);
  expect(open).toEqual([]);
  expect(evaluateFolder).toHaveBeenCalledWith(
    { ...options, folder, base: "/base", data, tasks: ["cb", "rte"], placement: "a placement" },
    "ties",
  );
});

test("a model without heads is called after each task, and is the base", async () => {
  await measured(false);
  expect(vi.mocked(writeHead).mock.calls.map(([, member, names]) => [member, names])).toEqual(
    ["cb", "rte"].map((label) => [{ ...base, label }, undefined]),
  );
  expect(locate).not.toHaveBeenCalled();
});

test("an expert is closed, whatever fails", async () => {
  vi.mocked(writeHead).mockRejectedValueOnce(new Error("the disk is full"));
  await expect(measured(true)).rejects.toThrow("the disk is full");
  expect(open).toEqual([]);
});

test("where no task is held out, nobody is asked for its expert", async () => {
  vi.mocked(locate).mockRejectedValue(new Error("there is nothing to find"));
  expect(await heldOutHashes(inputsOf(true), options, [])).toEqual([]);
  expect(locate).not.toHaveBeenCalled();
});
