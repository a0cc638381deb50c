import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageFolder } from "../../src/package.js";
import { choose, equation6, fitsBudget, placements, predict, type Budget } from "../../src/plan/memory.js";
import { entries, sum } from "../../src/plan/shape.js";
import { shapeOfHeader } from "../../src/plan/shape.js";

const folder = join(packageFolder, "experiments", "t0-3b");
const read = (file: string) =>
  JSON.parse(readFileSync(join(folder, file), "utf8")) as Record<string, unknown>;
const header = Object.entries(read("header.json") as Record<string, { shape: number[] }>).map(
  ([name, { shape }]) => ({ name, shape, bytes: 4 }),
);
const t0 = shapeOfHeader(header, read("config.json"), 11);
const step = { tokens: 1024, microBatch: 1024, length: 64 };
const rates = { flops: 4e11, merge: 2e10, upload: 5e9, read: 1e9 };
const plan = (experts: number) =>
  placements.map((placement) =>
    predict({ family: { ...t0, experts }, step, options: { packing: "f32", density: 1 }, rates }, placement),
  );
const at = (experts: number, residency: string, blockwise: boolean) =>
  plan(experts).find((p) => p.residency === residency && p.blockwise === blockwise)!;

test("T0-3B from its header alone: blocks, embeddings, and the paper's 130 GB by equation 6", () => {
  const n = sum(t0.tensors.map(entries));
  expect(n).toBeGreaterThan(2.84e9);
  expect(n).toBeLessThan(2.86e9);
  expect(t0.blocks.filter(({ id }) => /^(encoder|decoder)\.block\.\d+$/.test(id))).toHaveLength(48);
  expect(t0.tensors.filter(({ table }) => table).map(({ name }) => name)).toEqual([
    "shared.weight",
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
  ]);
  // The paper's own N is about 2.92e9 (in GiB).
  expect(equation6(2.92e9, 11, 2112) / 2 ** 30).toBeCloseTo(130.5, 0);
  expect(equation6(2.92e9, 2, 2112) / 2 ** 30).toBeCloseTo(32.6, 0);
});

test("device memory is flat in the number of experts, but for those that live on the device", () => {
  for (const residency of ["host", "disk"])
    for (const blockwise of [false, true])
      expect(at(16, residency, blockwise).device / at(2, residency, blockwise).device).toBeLessThan(1.05);
  expect(at(16, "device", false).device).toBeGreaterThan(2 * at(2, "device", false).device);
  expect(at(11, "disk", true).device).toBeLessThan(4 * 2 ** 30);
});

test("the first placement that fits is taken, and only what the request allows", () => {
  const budget = (device: number, host: number): Budget => ({ device, host, shared: false });
  const of = (device: number, host: number, request: Partial<Parameters<typeof choose>[1]> = {}) => {
    const found = choose(plan(11), { residency: "auto", blocks: "auto", ...request }, budget(device, host));
    return found && `${found.residency}${found.blockwise ? " by blocks" : ""}`;
  };
  expect(of(1e12, 1e12)).toBe("device");
  expect(of(8e10, 1e12)).toBe("host");
  expect(of(4e9, 1e12)).toBe("host by blocks");
  expect(of(8e10, 2e10)).toBe("disk");
  expect(of(4e9, 2e10)).toBe("disk by blocks");
  expect(of(1e12, 1e12, { residency: "disk" })).toBe("disk");
  expect(of(1e12, 1e12, { blocks: "on" })).toBe("device by blocks");
  expect(of(1e8, 1e12)).toBeUndefined();
});

test("where device and host are one memory, both together must fit it", () => {
  const [one] = plan(2);
  const prediction = { ...one!, device: 6e9, host: 5e9 };
  const budget = { device: 8e9, host: 8e9 };
  expect(fitsBudget(prediction, { ...budget, shared: false })).toBe(true);
  expect(fitsBudget(prediction, { ...budget, shared: true })).toBe(false);
  expect(fitsBudget({ ...prediction, host: 2e9 }, { ...budget, shared: true })).toBe(true);
  // A device's own budget binds in either case, and so does the host's where it is apart.
  expect(
    fitsBudget({ ...prediction, device: 8.1e9, host: 0 }, { device: 8e9, host: 20e9, shared: true }),
  ).toBe(false);
  expect(fitsBudget({ ...prediction, host: 8.1e9 }, { ...budget, shared: false })).toBe(false);
});
