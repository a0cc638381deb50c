import { beforeEach, expect, test, vi } from "vitest";
import { engineNamed, freeMemory } from "../../src/backend/index.js";
import type { Member } from "../../src/checkpoint/family.js";
import { UserError } from "../../src/errors.js";
import { planMemory, shapeOf, type PlaceOptions } from "../../src/inputs/placement.js";
import { placements } from "../../src/plan/memory.js";
import type { FamilyShape, StepShape } from "../../src/plan/shape.js";
import { toyModel } from "../toy.js";

/** Which placement is taken on a machine of so much memory. */
vi.mock("../../src/backend/index.js", async (original) => ({
  ...(await original<object>()),
  engineNamed: vi.fn(),
  freeMemory: vi.fn(),
}));

const calibrate = vi.fn(async () => ({ ...rates, flops: 7 }));
const rates = { flops: 1e9, merge: 1e9, upload: 1e9, read: 1e9 };
/** 400 MB of float32 in two blocks, and four experts. */
const family: FamilyShape = {
  tensors: [0, 1].map((i) => ({ name: `${i}.w`, shape: [5000, 10_000], bytes: 4, table: false })),
  blocks: [0, 1].map((i) => ({ id: `${i}`, names: [`${i}.w`] })),
  experts: 4,
  coefficients: 8,
  width: 10,
  heads: 1,
};
const step: StepShape = { tokens: 10, microBatch: 10, length: 10 };
const auto: PlaceOptions = { packing: "f32", density: 1, request: { residency: "auto", blocks: "auto" } };

function machine(device: number, free: number, shared = false): void {
  vi.mocked(engineNamed).mockImplementation(
    (name) =>
      ({
        ownHeap: name === "wasm",
        deviceMemory: () => ({ bytes: device, from: "a card", shared }),
      }) as ReturnType<typeof engineNamed>,
  );
  vi.mocked(freeMemory).mockReturnValue(free);
}
beforeEach(() => {
  calibrate.mockClear();
  machine(1e12, 1e12);
});
const plan = (more: Partial<PlaceOptions> = {}, engine: "cpu" | "wasm" = "cpu", of = family) =>
  planMemory(of, step, engine, { ...auto, rates, measure: calibrate, ...more });
const chosen = async (more: Partial<PlaceOptions> = {}, engine: "cpu" | "wasm" = "cpu") => {
  const { residency, blockwise } = (await plan(more, engine)).chosen;
  return `${residency}${blockwise ? " by blocks" : ""}`;
};

test("every placement is predicted, and the first that fits is taken", async () => {
  const { predictions, ...found } = await plan();
  expect(predictions.map(({ residency, blockwise }) => ({ residency, blockwise }))).toEqual(placements);
  expect(found.chosen).toBe(predictions[0]);
  expect(found).toMatchObject({ family, step, engine: "cpu", rates, asked: false });
  expect(found.options).toEqual({ packing: "f32", density: 1 });
  const [device, host, , hostByBlocks] = predictions.map((one) => one.device);
  machine(device! - 1, 1e12);
  expect(await chosen()).toBe("host");
  machine(host! - 1, 1e12);
  expect(await chosen()).toBe("host by blocks");
  // 3.27 GB beside the device: within four fifths of 4.1 GB, not of 4.
  machine(hostByBlocks!, 4.1e9);
  expect(await chosen()).toBe("host by blocks");
  machine(hostByBlocks!, 4e9);
  expect(await chosen()).toBe("disk by blocks");
});

test("four fifths of the free memory are the host's, and where it is one memory both must fit", async () => {
  const { budget } = await plan();
  expect(budget).toEqual({ device: 1e12, host: 0.8e12, shared: false, from: "a card" });
  // 2.97 GB on the device and 1 GB beside it.
  machine(3e9, 4e9);
  expect(await chosen()).toBe("device");
  machine(3e9, 4e9, true);
  expect(await chosen()).not.toBe("device");
});

test("--memory-budget is the device's, and processes that share the machine share all of it", async () => {
  const given = (await plan({ memoryBudget: 5e9 })).budget;
  expect(given).toEqual({ device: 5e9, host: 0.8e12, shared: false, from: "--memory-budget" });
  const shared = await plan({ share: 4 });
  expect(shared.budget).toEqual({ device: 2.5e11, host: 0.2e12, shared: false, from: "a card" });
  expect(shared.options, "what is no option of the plan is none of its").toEqual({
    packing: "f32",
    density: 1,
  });
  expect((await plan({ share: 4, memoryBudget: 8e10 })).budget.device).toBe(2e10);
});

test("no budget lifts the bounds of WebAssembly's heap, and each process has a heap of its own", async () => {
  machine(3e10, 1e12);
  expect((await plan({ memoryBudget: 9e10 }, "wasm")).budget.device).toBe(3e10);
  expect((await plan({ memoryBudget: 1e10 }, "wasm")).budget.device).toBe(1e10);
  expect((await plan({ share: 4 }, "wasm")).budget.device).toBe(3e10);
  expect((await plan({ share: 4, memoryBudget: 4e10 }, "wasm")).budget.device).toBe(1e10);
});

test("who names both the place and the blocks gets them, fit or not; who names one gets what fits", async () => {
  machine(1, 1);
  const named = await plan({ request: { residency: "host", blocks: "on" } });
  expect(named.chosen).toMatchObject({ residency: "host", blockwise: true });
  expect(named.asked).toBe(true);
  for (const request of [
    { residency: "host", blocks: "auto" },
    { residency: "auto", blocks: "on" },
  ] as const) {
    await expect(plan({ request })).rejects.toThrow("no placement fits");
    machine(1e12, 1e12);
    expect((await plan({ request })).asked).toBe(false);
    machine(1, 1);
  }
});

test("where nothing fits, it names the budget, the placement that takes least and what helps", async () => {
  machine(1e8, 2e9);
  const refused = plan();
  await expect(refused).rejects.toBeInstanceOf(UserError);
  const [, , , hostByBlocks, disk] = (await plan({ request: { residency: "disk", blocks: "off" } }))
    .predictions;
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;
  // By blocks from host memory is as small as from the disk, and stands before it.
  await expect(refused).rejects.toThrow(
    "no placement fits 0.10 GB of device memory (a card) and 1.60 GB of host memory: --residency host " +
      `--blocks on would take ${gigabytes(hostByBlocks!.device)} and ${gigabytes(hostByBlocks!.host)}; ` +
      "a smaller --micro-batch or --batch-size takes less",
  );
  await expect(plan({ request: { residency: "disk", blocks: "auto" } })).rejects.toThrow(
    "--residency disk --blocks on would take",
  );
  await expect(plan({ request: { residency: "auto", blocks: "off" } })).rejects.toThrow(
    `--residency host would take ${gigabytes(disk!.device)}`,
  );
});

test("rates are measured where nobody gives them", async () => {
  expect((await plan()).rates).toBe(rates);
  expect(calibrate).not.toHaveBeenCalled();
  const measured = await planMemory(family, step, "cpu", { ...auto, measure: calibrate });
  expect(measured.rates.flops).toBe(7);
  expect(measured.predictions[0]!.seconds).toBeGreaterThan((await plan()).predictions[0]!.seconds);
});

test("equation 6 of all experts, and of two with their share of the coefficients", async () => {
  const { equation6 } = await plan();
  expect(equation6).toEqual({ flat: 4e8 + 12 * 8 + 4 * 4e8, pairwise: 4e8 + 12 * 4 + 2 * 4e8 });
  const odd = await plan({}, "cpu", { ...family, experts: 3, coefficients: 7 });
  expect(odd.equation6.pairwise).toBe(4e8 + 12 * 5 + 2 * 4e8);
});

test("a model's shape: tensors as their file has them, tables, and what runs together", () => {
  const base = {
    actual: new Map([
      ["u", "model.u"],
      ["v", "model.v"],
    ]),
    checkpoint: { entry: (name: string) => ({ dtype: name === "model.u" ? "BF16" : "F32" }) },
  } as unknown as Member;
  expect(shapeOf(toyModel({ tables: new Set(["v"]), width: 5, heads: 3 }), base, 4)).toEqual({
    experts: 4,
    width: 5,
    heads: 3,
    coefficients: 8,
    tensors: [
      { name: "u", shape: [2], table: false, bytes: 2 },
      { name: "v", shape: [2], table: true, bytes: 4 },
    ],
    blocks: [
      { id: "u", names: ["u"] },
      { id: "v", names: ["v"] },
    ],
  });
});
