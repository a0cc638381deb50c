import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { packageFolder } from "../../src/package.js";
import { temporaryFolder } from "../helpers.js";
import { pythonWith } from "./card.js";

const needed = ["torch", "transformers", "peft", "pyarrow", "PIL"];
const python = pythonWith(needed);
const reason =
  python === undefined ? ` (skipped: TRAIN_MERGE_PYTHON names no Python with ${needed.join(", ")})` : "";

test.skipIf(python === undefined)(
  `transformers and PEFT answer as train-merge does, whatever the kind of task, of file and of model${reason}`,
  async () => {
    const script = join(packageFolder, "scripts", "golden", "check_pipelines.py");
    const { stdout } = await promisify(execFile)(python!, [script, await temporaryFolder()]);
    expect(stdout.trim().split("\n").at(-1), stdout).toBe("equal");
  },
);
