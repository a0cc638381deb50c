import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { dispose } from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { startEngine, watchMemory } from "../../src/backend/index.js";
import { openMember, type Member } from "../../src/checkpoint/family.js";
import { writeSafetensors } from "../../src/checkpoint/write.js";
import { gramMatrices } from "../../src/merge/gram.js";
import { innerProducts, mergeTensors } from "../../src/merge/merged.js";
import { columnOf } from "../../src/merge/source.js";
import { makeTable } from "../../src/merge/table.js";
import { partBytes, type Residency } from "../../src/merge/residency.js";
import { loadTaskVectors } from "../../src/merge/vectors.js";
import { relativeError, temporaryFolder } from "../helpers.js";

const [rows, width, count] = [1536, 512, 6];
const names = Array.from({ length: count }, (_, i) => `block.${i}.weight`);
let members: Member[];

beforeAll(async () => {
  await startEngine("wasm");
  const folder = await temporaryFolder();
  members = [];
  for (let m = 0; m < 3; m++) {
    const place = join(folder, String(m));
    await mkdir(place);
    await writeFile(join(place, "config.json"), "{}");
    await writeSafetensors(
      join(place, "model.safetensors"),
      names.map((name, i) => ({
        name,
        dtype: "F32" as const,
        shape: [rows, width],
        bytes: async () =>
          new Uint8Array(
            Float32Array.from({ length: rows * width }, (_, at) => ((at * 31 + i * 7 + m * 13) % 101) / 1000)
              .buffer,
          ),
      })),
    );
    members.push(await openMember(String(m), place, (name) => name));
  }
  return async () => {
    for (const { checkpoint } of members) await checkpoint.close();
  };
});

/** Merges all tensors and takes all inner products, as a step does; the device peak on the way. */
async function peak(k: number, residency: Residency): Promise<number> {
  const memory = watchMemory();
  memory.reset();
  const vectors = await loadTaskVectors(
    {
      base: members[0]!,
      columns: Array.from({ length: k }, (_, i) => ({ ...columnOf(members[1 + (i % 2)]!), label: `e${i}` })),
    },
    names,
    {
      residency,
      tables: new Set(),
    },
  );
  const requests = names.map((name) => ({ name }));
  const merged = await mergeTensors(
    vectors,
    makeTable(count, k, () => 0.1),
    requests,
  );
  const products = await innerProducts(vectors, requests, merged);
  dispose([...merged, ...products]);
  vectors.dispose();
  return memory.peak();
}

test("device memory does not grow with the experts where task vectors live in host memory or on disk", async () => {
  const model = 4 * rows * width * count;
  for (const residency of ["host", "disk"] as const) {
    const [two, sixteen] = [await peak(2, residency), await peak(16, residency)];
    expect(sixteen / two, residency).toBeLessThan(1.05);
    // The merged weights, one tensor twice while its parts are joined, one part with its base.
    expect(sixteen, residency).toBeLessThan(model + 2 * 4 * rows * width + 2 * partBytes);
  }
  // On the device they are all held: that the measure sees it shows that it can fail.
  expect(await peak(16, "device")).toBeGreaterThan(16 * model);
});

test("Gram matrices of streamed parts are those of the whole", async () => {
  const family = { base: members[0]!, columns: [1, 2].map((m) => columnOf(members[m]!)) };
  const options = { granularity: "model", tables: new Set<string>() } as const;
  const grams = [];
  for (const residency of ["disk", "device"] as const) {
    const vectors = await loadTaskVectors(family, names, { ...options, residency });
    grams.push((await gramMatrices(vectors))[0]!.gram);
    vectors.dispose();
  }
  expect(relativeError(grams[0]!, grams[1]!)).toBeLessThan(1e-5);
  let [norm, between] = [0, 0];
  for (const name of names) {
    const [b, x, y] = await Promise.all(members.map(async (member) => (await member.weights(name)).values));
    for (let i = 0; i < b!.length; i++) {
      norm += (x![i]! - b![i]!) ** 2;
      between += (x![i]! - b![i]!) * (y![i]! - b![i]!);
    }
  }
  expect(Math.abs(grams[0]![0]! - norm) / norm).toBeLessThan(1e-4);
  expect(Math.abs(grams[0]![1]! - between) / norm).toBeLessThan(1e-4);
});
