import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openTorchFile } from "../../src/checkpoint/torch-file.js";
import { packageFolder } from "../../src/package.js";
import { isFloat, toFloat32 } from "../../src/tensor/dtype.js";
import { golden, temporaryFolder } from "../helpers.js";

const made = join(packageFolder, "test", "golden", "torch");
type Expected = Record<string, { shape: number[]; values: number[] }>;

test.each(["weights", "module"])("%s.bin holds what torch saved", async (name) => {
  const file = await openTorchFile(join(made, `${name}.bin`));
  const expected = golden<Expected>(`torch/${name}`);
  expect([...file.entries.keys()]).toEqual(Object.keys(expected));
  for (const [tensor, { shape, values }] of Object.entries(expected)) {
    const read = await file.read(tensor);
    expect(read.shape, tensor).toEqual(shape);
    if (isFloat(read.dtype)) expect([...toFloat32(read)], tensor).toEqual(values.map(Math.fround));
    else if (read.dtype === "I64")
      expect([...new BigInt64Array(read.bytes.slice().buffer)].map(Number), tensor).toEqual(values);
    else expect([...read.bytes], tensor).toEqual(values);
  }
  await file.close();
});

test("parts of a tensor are read by byte range", async () => {
  const file = await openTorchFile(join(made, "weights.bin"));
  const whole = await file.read("tied");
  expect(await file.readRange("rows", 0, 12)).toEqual(whole.bytes.slice(12, 24));
  await expect(file.readRange("rows", 20, 8)).rejects.toThrow(RangeError);
  await file.close();
});

test.each([
  ["evil", /asks for "__builtin__\.print|asks for "builtins\.print", which is not run/],
  ["object", /asks for "torch\.nn\.modules\.linear\.Linear", which is not run/],
  ["nested", /more than tensors by name \(state_dict\)/],
  ["view", /"w" is stored as a view/],
  ["legacy", /no zip archive/],
])("%s.bin is refused, and nothing in it is run", async (name, message) => {
  await expect(openTorchFile(join(made, `${name}.bin`))).rejects.toThrow(message);
});

test("no length in a file is trusted: cut anywhere, or with a byte changed, it is read or refused", async () => {
  const folder = await temporaryFolder();
  const bytes = await readFile(join(made, "module.bin"));
  const path = join(folder, "broken.bin");
  const opens = async (): Promise<boolean> => {
    try {
      const file = await openTorchFile(path);
      for (const name of file.entries.keys()) await file.read(name);
      await file.close();
      return true;
    } catch (error) {
      expect((error as Error).name, String(error)).toBe("UserError");
      return false;
    }
  };
  for (let length = 0; length < bytes.length; length += 37) {
    await writeFile(path, bytes.subarray(0, length));
    expect(await opens()).toBe(false);
  }
  let changed = 0;
  for (let i = 0; i < bytes.length; i += 3) {
    const copy = Buffer.from(bytes);
    copy[i] = copy[i]! ^ 0xff;
    await writeFile(path, copy);
    if (!(await opens())) changed++;
  }
  expect(changed).toBeGreaterThan(20);
}, 60_000);
