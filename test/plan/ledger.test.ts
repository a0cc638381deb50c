import { expect, test } from "vitest";
import {
  allowed,
  choose,
  equation6,
  fitsBudget,
  placements,
  predict,
  blockRequest,
  requestFor,
  withTables,
  type Placement,
  type PlanOptions,
  type Prediction,
  type Rates,
} from "../../src/plan/memory.js";
import type { FamilyShape, StepShape, TensorDescription } from "../../src/plan/shape.js";

/** What a step is predicted to take, item by item, on a family small enough to count by hand. */
const tensor = (
  name: string,
  shape: readonly number[],
  more: Partial<TensorDescription> = {},
): TensorDescription => ({
  name,
  shape,
  bytes: 2,
  table: false,
  ...more,
});
/** 84 entries, and a table of 40; blocks of 52 (with the table), 40 and 32. */
const family: FamilyShape = {
  tensors: [
    tensor("table", [10, 4], { table: true }),
    tensor("norm", [12]),
    tensor("0.w", [8, 4]),
    tensor("0.b", [8]),
    tensor("1.w", [2, 16]),
  ],
  blocks: [
    { id: "in", names: ["table", "norm"] },
    { id: "0", names: ["0.w", "0.b"] },
    { id: "1", names: ["1.w"] },
  ],
  experts: 3,
  coefficients: 15,
  width: 4,
  heads: 2,
};
const step: StepShape = { tokens: 100, microBatch: 40, length: 10 };
const none = Infinity;
const idle: Rates = { flops: none, merge: none, upload: none, read: none };
const plain: PlanOptions = { packing: "f32", density: 1 };

function of(
  residency: Placement["residency"],
  blockwise: boolean,
  {
    shape = family,
    work = step,
    options = plain,
    rates = idle,
  }: { shape?: FamilyShape; work?: StepShape; options?: PlanOptions; rates?: Partial<Rates> } = {},
): Prediction {
  return predict(
    { family: shape, step: work, options, rates: { ...idle, ...rates } },
    { residency, blockwise },
  );
}

const MiB = 2 ** 20;
const change = 64 * MiB;
/** Four bytes for 40 tokens of a pass. */
const pass = 4 * 40;
/** Floats a token: 5.4 a product's result and 2 heads × 10 tokens of scores in each block; 7 × 8 for one operation. */
const activations = pass * (20 + (5.4 * 8 + 20) + (5.4 * 2 + 20) + 56);
/** …of the block that keeps most, and twice what goes from block to block. */
const blockActivations = pass * (5.4 * 8 + 20 + 56) + 8 * 40 * 4;
/** One part of three experts' task vectors of the largest tensor, and of the base's. */
const part = 4 * 32 * 3 + 4 * 32;

test("on the device: merged weights, gradients, activations, base and task vectors", () => {
  const weights = 4 * (52 + 40 + 32) * (2.25 + 1);
  expect(of("device", false).device).toBeCloseTo(
    change + weights + activations + (4 + 4 * 3) * 84 + 4 * 40,
    6,
  );
  // By blocks, the largest block's alone.
  expect(of("device", true).device).toBeCloseTo(
    change + 4 * 52 * 3.25 + blockActivations + (4 + 4 * 3) * 84 + 4 * 40,
    6,
  );
});

test("elsewhere: one part of the task vectors, and the largest tensor", () => {
  const resident = part + 4 * 32;
  for (const residency of ["host", "disk"] as const) {
    expect(of(residency, false).device).toBeCloseTo(change + 4 * 124 * 3.25 + activations + resident, 6);
    expect(of(residency, true).device).toBeCloseTo(change + 4 * 52 * 3.25 + blockActivations + resident, 6);
  }
});

test("a part is bounded, whatever the tensor and the number of experts", () => {
  const large: FamilyShape = {
    ...family,
    tensors: [tensor("0.w", [4 * MiB, 1])],
    blocks: [{ id: "0", names: ["0.w"] }],
    width: 1,
    heads: 0,
  };
  const whole = (experts: number) => of("host", false, { shape: { ...large, experts } }).device;
  const few = (experts: number) => 4 * MiB + (4 * MiB) / experts;
  expect(whole(2) - few(2)).toBeCloseTo(whole(8) - few(8), 3);
  expect(whole(2) - whole(8)).toBeCloseTo(2 * MiB - 0.5 * MiB, 3);
});

test("where one pass does, no second gradient is added up", () => {
  const [several, one] = [40, 100].map(
    (microBatch) => of("device", false, { work: { tokens: 40, microBatch, length: 10 } }).device,
  );
  expect(several).toBe(one);
  const two = of("device", false, { work: { tokens: 41, microBatch: 40, length: 10 } }).device;
  expect(two - one!).toBeCloseTo(4 * 124, 6);
});

test("of a table only the rows travel that a step can name", () => {
  const one = of("device", false, { work: { tokens: 3, microBatch: 40, length: 10 } }).device;
  const small = 4 * 3 * (20 + (5.4 * 8 + 20) + (5.4 * 2 + 20) + 56);
  // 3 rows of 4 in place of 40 entries.
  expect(one).toBeCloseTo(change + 4 * (124 - 40 + 12) * 2.25 + small + 16 * 84 + 160, 6);
});

test("an operation's own memory goes with the widest product, and with 4 widths at most", () => {
  const wide = { ...family, tensors: [...family.tensors, tensor("apart", [100, 2])] };
  const grown = of("host", false, { shape: wide }).device - of("host", false).device;
  // In no block: nothing but 7 × (4 × 4 − 8) floats a token, and a larger part.
  expect(grown).toBeCloseTo(pass * 7 * 8 + 4 * (200 - 32) * (3 + 1 + 1), 6);
});

test("packed task vectors are smaller, and unpacked one tensor at a time", () => {
  const bf16 = { options: { packing: "bf16", density: 1 } as const };
  expect(of("device", false, bf16).device - of("device", false).device).toBeCloseTo(
    -2 * 3 * 84 + 4 * 3 * 32,
    6,
  );
  expect(of("host", false, bf16).device - of("host", false).device).toBeCloseTo(part, 6);
  const sparse = of("device", false, { options: { packing: "sparse", density: 0.25 } });
  expect(sparse.device - of("device", false).device).toBeCloseTo((8 * 0.25 - 4) * 3 * 84 + 4 * 3 * 32, 6);
});

/** What reading and packing a part takes, with what is read ahead. */
const reading = 12 * 4 * MiB;

test("in host memory: tables' task vectors, or all of them, or none", () => {
  expect(of("device", false).host).toBe(reading + 4 * 3 * 40 + 2 * 40);
  expect(of("host", false).host).toBe(reading + 4 * 3 * (84 + 40) + 2 * (84 + 40));
  expect(of("disk", false).host).toBe(reading);
  const int8 = { options: { packing: "int8", density: 1 } as const };
  expect(of("host", false, int8).host).toBe(reading + 3 * 124 + 2 * 124);
});

test("reading takes more where a sweep reads more files than there are experts, or a tensor is large", () => {
  const files = (count: number) => of("disk", false, { shape: { ...family, files: count } }).host;
  expect(files(6)).toBe(2 * reading);
  expect(files(2)).toBe(reading);
  const table = tensor("table", [3e6, 1], { table: true });
  const large = { ...family, tensors: [table, ...family.tensors.slice(1)] };
  expect(of("disk", false, { shape: large }).host).toBe(5 * 4 * 3e6);
});

test("by blocks, activations between blocks lie in host memory: a step's, or an evaluation's sweep", () => {
  expect(of("disk", true).host).toBe(reading + 256 * MiB);
  const many = { tokens: 16 * MiB, microBatch: 40, length: 10 };
  expect(of("disk", true, { work: many }).host).toBe(reading + 4 * 16 * MiB * 4 * 3);
  expect(of("disk", false, { work: many }).host).toBe(reading);
});

/** How often the task vectors are gone through by blocks: all but the largest block once more. */
const sweeps = 3 - 52 / 124;

test("time: products, thrice a token, or four times where a block runs again", () => {
  expect(of("device", false, { rates: { flops: 10 } }).seconds).toBeCloseTo((2 * 84 * 100 * 3) / 10, 6);
  expect(of("device", true, { rates: { flops: 10 } }).seconds).toBeCloseTo((2 * 84 * 100 * 4) / 10, 6);
});

test("time: every sweep merges base and task vectors, and writes the result", () => {
  const bytes = (4 + 4 * 3) * 84 + 4 * 84;
  for (const residency of ["device", "host", "disk"] as const) {
    expect(of(residency, false, { rates: { merge: 10 } }).seconds).toBeCloseTo((2 * bytes) / 10, 6);
    expect(of(residency, true, { rates: { merge: 10 } }).seconds).toBeCloseTo((sweeps * bytes) / 10, 6);
  }
});

test("time: what does not live on the device is uploaded each sweep", () => {
  const bytes = (4 + 4 * 3) * 84;
  expect(of("device", false, { rates: { upload: 10 } }).seconds).toBe(0);
  expect(of("host", false, { rates: { upload: 10 } }).seconds).toBeCloseTo((2 * bytes) / 10, 6);
  expect(of("disk", true, { rates: { upload: 10 } }).seconds).toBeCloseTo((sweeps * bytes) / 10, 6);
});

test("time: from the disk, base and every file are read each sweep, but tables", () => {
  expect(of("host", false, { rates: { read: 10 } })).toMatchObject({ disk: 0, seconds: 0 });
  expect(of("device", false).disk).toBe(0);
  expect(of("disk", false).disk).toBe(2 * 4 * 2 * 84);
  expect(of("disk", false, { rates: { read: 10 } }).seconds).toBeCloseTo((2 * 4 * 2 * 84) / 10, 6);
  expect(of("disk", true).disk).toBeCloseTo(sweeps * 4 * 2 * 84, 6);
  expect(of("disk", false, { shape: { ...family, files: 5 } }).disk).toBe(2 * 6 * 2 * 84);
});

test("a prediction says which placement it is of", () => {
  for (const placement of placements)
    expect(of(placement.residency, placement.blockwise)).toMatchObject(placement);
});

test("placements: what travels least comes first", () => {
  expect(
    placements.map(({ residency, blockwise }) => `${residency}${blockwise ? " by blocks" : ""}`),
  ).toEqual(["device", "host", "device by blocks", "host by blocks", "disk", "disk by blocks"]);
});

const prediction = (device: number, host: number): Prediction => ({
  residency: "device",
  blockwise: false,
  device,
  host,
  disk: 0,
  seconds: 1,
});

test("what takes just the budget fits", () => {
  const apart = { device: 8, host: 5, shared: false };
  expect(fitsBudget(prediction(8, 5), apart)).toBe(true);
  expect(fitsBudget(prediction(8.1, 5), apart)).toBe(false);
  expect(fitsBudget(prediction(8, 5.1), apart)).toBe(false);
  const together = { device: 8, host: 12, shared: true };
  expect(fitsBudget(prediction(8, 4), together)).toBe(true);
  expect(fitsBudget(prediction(8, 4.1), together)).toBe(false);
  expect(fitsBudget(prediction(8.1, 0), together)).toBe(false);
  // One memory is as large as the larger of what is said of it.
  expect(fitsBudget(prediction(8, 4), { device: 12, host: 5, shared: true })).toBe(true);
});

test("a request leaves what it names; auto leaves all", () => {
  const all = placements.map((placement) => ({ ...prediction(1, 1), ...placement }));
  const left = (residency: "auto" | Placement["residency"], blocks: "auto" | "on" | "off") =>
    allowed(all, { residency, blocks }).map((one) => all.indexOf(one));
  expect(left("auto", "auto")).toEqual([0, 1, 2, 3, 4, 5]);
  expect(left("host", "auto")).toEqual([1, 3]);
  expect(left("auto", "on")).toEqual([2, 3, 5]);
  expect(left("auto", "off")).toEqual([0, 1, 4]);
  expect(left("disk", "on")).toEqual([5]);
  const budget = { device: 1, host: 1, shared: false };
  expect(choose(all, { residency: "auto", blocks: "on" }, budget)).toBe(all[2]);
  expect(choose(all, { residency: "auto", blocks: "on" }, { ...budget, device: 0 })).toBeUndefined();
});

test("equation 6: four bytes an entry of the model and of each copy, twelve a trained number", () => {
  expect(equation6(1000, 3, 10)).toBe(4000 + 120 + 12_000);
});

test("a placement as a request is granted as itself alone", () => {
  const all = placements.map((placement) => ({ ...prediction(1, 1), ...placement }));
  for (const one of all) expect(allowed(all, requestFor(one))).toEqual([one]);
  expect(requestFor({ residency: "host", blockwise: false })).toEqual({ residency: "host", blocks: "off" });
  // A loss that looks at one block at a time has the model by blocks, unless the user says otherwise.
  expect(blockRequest(true, { residency: "auto", blocks: "auto" })).toEqual({
    residency: "auto",
    blocks: "on",
  });
  expect(blockRequest(true, { residency: "auto", blocks: "off" }).blocks).toBe("off");
  expect(blockRequest(false, { residency: "auto", blocks: "auto" }).blocks).toBe("auto");
});

test("tables live on a card that has the room, and nowhere else", () => {
  const workload = { family, step, options: plain, rates: idle };
  const chosen = predict(workload, { residency: "device", blockwise: false });
  const held = predict(workload, { residency: "device", blockwise: false, holdsTables: true });
  expect(held.device).toBeGreaterThan(chosen.device);
  expect(held.host).toBeLessThan(chosen.host);
  const roomy = { device: held.device, host: 1e12, shared: false };
  expect(withTables(workload, chosen, roomy)).toEqual(held);
  expect(withTables(workload, chosen, { ...roomy, device: held.device - 1 })).toBe(chosen);
  expect(withTables(workload, chosen, { ...roomy, shared: true })).toBe(chosen);
  for (const other of [{ packing: "sparse" }, { basePacking: "file" }, { basePacking: "int8" }] as const)
    expect(withTables({ ...workload, options: { ...plain, ...other } }, chosen, roomy)).toBe(chosen);
  const away = predict(workload, { residency: "host", blockwise: false });
  expect(withTables(workload, away, roomy)).toBe(away);
});

test("a weight that many blocks read is made once", () => {
  const large = [...family.tensors, tensor("2.w", [3000, 3000])];
  const blocks = [...family.blocks, { id: "2", names: ["2.w"] }];
  const again = ["3", "4", "5"].map((id) => ({ id, names: ["2.w"] }));
  const [once, often] = [blocks, [...blocks, ...again]].map(
    (all) => of("disk", false, { shape: { ...family, tensors: large, blocks: all } }).device,
  );
  // Activations of three blocks more, a few numbers for each of 40 tokens and 3,000 columns; the weight has 36 MB.
  expect(often! - once!).toBeLessThan(12e6);
});
