import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import seedrandom from "seedrandom";
import { expect, test } from "vitest";
import { damageBytes } from "../../scripts/campaign/mutations.js";
import { UserError } from "../../src/errors.js";
import { arrowRows } from "../../src/tasks/arrow.js";
import { temporaryFolder } from "../helpers.js";

const golden = (name: string) => new URL(`../golden/arrow/${name}`, import.meta.url).pathname;

async function rowsOf(path: string): Promise<unknown[]> {
  const rows: unknown[] = [];
  for await (const { fields } of arrowRows(path)) rows.push(fields);
  return rows;
}

test.each(["file", "stream"])("pyarrow's %s has pyarrow's rows, across batches", async (kind) => {
  const expected: unknown = JSON.parse(await readFile(golden("rows.json"), "utf8"));
  expect(await rowsOf(golden(`${kind}.arrow`))).toEqual(expected);
});

test("a damaged file is read or refused in a line, and soon", { timeout: 60_000 }, async () => {
  const path = join(await temporaryFolder(), "damaged.arrow");
  let refused = 0;
  for (const kind of ["file", "stream"]) {
    const whole = await readFile(golden(`${kind}.arrow`));
    for (let i = 0; i < 1000; i++) {
      await writeFile(path, damageBytes(seedrandom(`arrow/${kind}/${i}`), whole).bytes);
      await rowsOf(path).catch((error: unknown) => {
        if (!(error instanceof UserError)) throw error;
        refused++;
      });
    }
  }
  expect(refused).toBeGreaterThan(1000);
});
