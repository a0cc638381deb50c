import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { engineNamed, engineNames, engines } from "../../src/backend/engines.js";
import { packageFolder } from "../../src/package.js";

test("an engine is found by its name; another name is refused", () => {
  for (const name of engineNames) expect(engineNamed(name).name).toBe(name);
  expect(() => engineNamed("abacus")).toThrow(/there is no engine "abacus"/);
});

test("only WebAssembly has a heap of its own", () => {
  expect(engines.filter(({ ownHeap }) => ownHeap).map(({ name }) => name)).toEqual(["wasm"]);
});

test("every engine says how much memory it has, and where the number comes from", () => {
  for (const { name, deviceMemory } of engines) {
    const { bytes, from, shared } = deviceMemory();
    expect(bytes, name).toBeGreaterThan(0);
    expect(from, name).not.toBe("");
    if (["wasm", "node", "cpu"].includes(name)) expect(shared, name).toBe(true);
  }
  expect(engineNamed("wasm").deviceMemory().bytes).toBeLessThan(4 * 2 ** 30);
  expect(engineNamed("webgpu").deviceMemory().from).toBe(
    "a guess: webgpu does not tell; --memory-budget sets it",
  );
});

test("the list of engines is read without tfjs, which would slow every command down", () => {
  const file = join(packageFolder, "dist", "src", "backend", "engines.js");
  const program = `await import(${JSON.stringify(file)}); console.log(globalThis._tfengine === undefined);`;
  const printed = execFileSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
  });
  expect(printed.trim()).toBe("true");
});
