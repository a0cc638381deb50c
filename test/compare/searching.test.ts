import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { openMember } from "../../src/checkpoint/family.js";
import { searchGrid } from "../../src/compare/search.js";
import type { MergeHooks } from "../../src/config/options.js";
import { writeMerge } from "../../src/folder/merge.js";
import type { Inputs } from "../../src/inputs/open.js";
import { method, parameter, type Method } from "../../src/methods/types.js";
import { temporaryFolder } from "../helpers.js";
import { startToy, toyExample, toyMember, toyTask } from "../toy.js";
import { toyInputs } from "./toy-inputs.js";

/** Which points of a grid are tried, and by which merges. What is written is a member of the toy family. */
vi.mock("../../src/folder/merge.js", () => ({ writeMerge: vi.fn() }));
vi.mock("../../src/checkpoint/family.js", async (original) => ({
  ...(await original<object>()),
  openMember: vi.fn(),
}));
vi.mock("../../src/inputs/open.js", () => ({
  mergeContextOf: ({ model, vectors }: Inputs) => ({ model, vectors }),
}));

const root = await temporaryFolder();
const folder = join(root, "trying");
let notes: string[] = [];
const hooks: MergeHooks = {
  note: (message) => void notes.push(message),
  progress: (phase, done, of) => void notes.push(`${phase} ${done}/${of}`),
  step: () => {},
  stopping: () => false,
};

/** Adds λ · strength to the first logit. */
const toy = (more: Partial<Method> = {}): Method => ({
  ...method({
    name: "toy",
    about: "",
    works: "deltas",
    parameters: {
      lambda: parameter.number(0.5, ""),
      strength: parameter.number(0.5, ""),
      other: parameter.number(7, ""),
    },
    grid: { strength: [0.5, 1], lambda: [0.2, 1] },
    merge: () => () => {},
  }),
  ...more,
});

let inputs: Inputs;
let closed = 0;
let opened = 0;
const values = () => vi.mocked(writeMerge).mock.calls.map(([, merge]) => merge.values);
beforeAll(startToy);
beforeEach(async () => {
  notes = [];
  closed = 0;
  opened = 0;
  inputs = await toyInputs({
    tasks: [
      // Right where more than 0.45 is added; and where more than 0.9 is.
      toyTask("a", { validation: [toyExample([1, 1.45], 0)], test: [] }),
      toyTask("b", { validation: [toyExample([1, 1.9], 0)], test: [] }),
    ] as never,
  });
  vi.mocked(writeMerge)
    .mockReset()
    .mockImplementation(async (into) => {
      await mkdir(into, { recursive: true });
      await writeFile(join(into, "model"), "");
    });
  vi.mocked(openMember)
    .mockReset()
    .mockImplementation((label) => {
      opened++;
      const { lambda, strength } = values().at(-1) as unknown as { lambda: number; strength: number };
      const member = toyMember(label, { u: [lambda * strength, 0] });
      return Promise.resolve({
        ...member,
        checkpoint: { close: async () => void closed++ } as unknown as typeof member.checkpoint,
      });
    });
});
afterEach(() => inputs.vectors.dispose());

const search = (of: Method, given: Readonly<Record<string, unknown>> = {}) =>
  searchGrid(
    folder,
    {
      method: of,
      given,
      merge: { base: inputs.family.base, inputs: inputs.family.experts, dtype: "auto", shardSize: 1000 },
    },
    inputs,
    hooks,
  );
const accuracies = (points: Awaited<ReturnType<typeof search>>) =>
  points.map(({ values: of, accuracy }) => [of, accuracy]);

const everyPoint = [
  [{ strength: 0.5, lambda: 0.2 }, 0],
  [{ strength: 0.5, lambda: 1 }, 0.5],
  [{ strength: 1, lambda: 0.2 }, 0],
  [{ strength: 1, lambda: 1 }, 1],
];

test("every point is merged, and scored on the validation examples as a mean over tasks", async () => {
  const points = await search(toy());
  expect(accuracies(points)).toEqual(everyPoint);
  expect(values()).toEqual(
    everyPoint.map(([of]) => ({ ...(of as object), other: 7, ...restOf(values()[0]!) })),
  );
  const nats = (first: number, other: number) => Math.log(1 + Math.exp(other - first));
  expect(points[3]!.loss).toBeCloseTo((nats(2, 1.45) + nats(2, 1.9)) / 2, 5);
  expect(notes).toEqual([1, 2, 3, 4].map((done) => `toy: search ${done}/4`));
});
/** Values that every method has. */
const restOf = ({ lambda: _l, strength: _s, other: _o, ...rest }: Readonly<Record<string, unknown>>) => rest;

test("where λ multiplies all that is added, its points are read off one merge with λ = 1", async () => {
  const points = await search(toy({ scaled: true }));
  expect(accuracies(points)).toEqual(everyPoint);
  expect(values().map(({ lambda, strength }) => [lambda, strength])).toEqual([
    [1, 0.5],
    [1, 1],
  ]);
  expect(notes).toEqual([1, 2, 3, 4].map((done) => `toy: search ${done}/4`));
  expect([opened, closed]).toEqual([2, 2]);
});

test("what the user gave is not searched, and stands in every merge", async () => {
  expect(accuracies(await search(toy(), { strength: 1, other: 9 }))).toEqual([
    [{ lambda: 0.2 }, 0],
    [{ lambda: 1 }, 1],
  ]);
  expect(values()).toMatchObject([
    { lambda: 0.2, strength: 1, other: 9 },
    { lambda: 1, strength: 1, other: 9 },
  ]);
  vi.mocked(writeMerge).mockClear();
  // λ given: nothing is read off a merge of another.
  expect(accuracies(await search(toy({ scaled: true }), { lambda: 0.5 }))).toEqual([
    [{ strength: 0.5 }, 0],
    [{ strength: 1 }, 0.5],
  ]);
  expect(values()).toMatchObject([{ lambda: 0.5 }, { lambda: 0.5 }]);
  // A value that is there but unset is searched.
  expect(await search(toy(), { strength: undefined, lambda: undefined })).toHaveLength(4);
});

test("a grid without λ, and none at all: one point, of the customary values", async () => {
  expect(accuracies(await search(toy({ scaled: true, grid: { strength: [1] } })))).toEqual([
    [{ strength: 1 }, 0.5],
  ]);
  const { grid: _, ...none } = toy();
  expect(accuracies(await search(none))).toEqual([[{}, 0]]);
});

test("merges are tried in float32 in a folder of their own, without a word, and the folder is gone", async () => {
  vi.mocked(openMember).mockImplementationOnce((label, where, canonical) => {
    expect([label, where]).toEqual(["merged", folder]);
    expect(existsSync(join(folder, "model"))).toBe(true);
    // The file has the base's names.
    expect(["model.u", "v"].map(canonical)).toEqual(["u", "v"]);
    const member = toyMember(label, {});
    return Promise.resolve({ ...member, checkpoint: { close: async () => {} } as never });
  });
  const { base } = inputs.family;
  const named = {
    ...base,
    actual: new Map([["u", "model.u"]]),
    checkpoint: { ...base.checkpoint, ref: () => undefined } as unknown as typeof base.checkpoint,
  };
  inputs = { ...inputs, family: { ...inputs.family, base: named } };
  await search(toy({ grid: { lambda: [1] } }));
  const [into, merge, watching] = vi.mocked(writeMerge).mock.calls[0]!;
  expect(into).toBe(folder);
  expect(merge).toMatchObject({ dtype: "F32", inputs: inputs.family.experts, shardSize: 1000 });
  notes = [];
  watching.note("which tensors are taken over");
  watching.progress("merge", 1, 2);
  expect(notes).toEqual([]);
  expect(watching.stopping()).toBe(false);
  expect(existsSync(folder)).toBe(false);
});

test("whatever fails, what was opened is closed and the folder is gone", async () => {
  vi.mocked(writeMerge).mockRejectedValueOnce(new Error("the disk is full"));
  await expect(search(toy())).rejects.toThrow("the disk is full");
  expect(existsSync(folder)).toBe(false);
  const broken = {
    ...inputs,
    plain: {
      ...inputs.plain,
      prepare: () => {
        throw new Error("a pass failed");
      },
    },
  };
  inputs = broken;
  await expect(search(toy())).rejects.toThrow("a pass failed");
  expect([opened, closed]).toEqual([1, 1]);
  expect(existsSync(folder)).toBe(false);
});
