import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { linkerFinds } from "../../src/backend/engine.js";

const folder = mkdtempSync(join(tmpdir(), "linker-"));
afterAll(() => rmSync(folder, { recursive: true }));
const list = join(folder, "ld.so.cache");
// As ldconfig writes it: names with zero bytes between them.
writeFileSync(list, "glibc-ld.so.cache1.1\0libc.so.6\0/lib/libc.so.6\0libvulkan.so.1\0/lib/libvulkan.so.1\0");

test("a library is found in the linker's list, or in a folder that it looks through", () => {
  expect(linkerFinds("libvulkan.so.1", list, [])).toBe(true);
  expect(linkerFinds("libGL.so.1", list, [folder])).toBe(false);
  writeFileSync(join(folder, "libGL.so.1"), "");
  expect(linkerFinds("libGL.so.1", list, [join(folder, "none"), folder])).toBe(true);
});

test("a system without the list is not judged", () => {
  expect(linkerFinds("libvulkan.so.1", join(folder, "none"), [])).toBe(true);
});

test("a library is not found by a name that begins like its own", () => {
  expect(linkerFinds("libvulkan.so", list, [])).toBe(false);
});
