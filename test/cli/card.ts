/** The Python code of a result's card, run as a reader of the card would run it. */
import { execFile, execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { packageFolder } from "../../src/package.js";

const python = process.env["TRAIN_MERGE_PYTHON"] ?? join(packageFolder, ".venv", "bin", "python");

/** A Python that has some packages; undefined where there is none. */
export function pythonWith(packages: readonly string[]): string | undefined {
  if (!existsSync(python)) return undefined;
  try {
    execFileSync(python, ["-c", `import ${packages.join(", ")}`], { stdio: "ignore" });
    return python;
  } catch {
    return undefined;
  }
}

/** Whether a Python is there with what cards use. */
export const canRunCards = pythonWith(["torch", "transformers", "peft"]) !== undefined;

/** What such a test is called: why it was skipped stands in it. */
export const cardTitle = (what: string): string =>
  `the code in the card of ${what} runs` +
  (canRunCards ? "" : " (skipped: TRAIN_MERGE_PYTHON names no Python with torch, transformers and peft)");

/**
 * Runs the card's code in the result's folder, and then `check`.
 * @param base what BASE stands for, where the result is an adapter
 * @returns what it printed
 */
export async function runCard(folder: string, check: string, base = ""): Promise<string> {
  const card = await readFile(join(folder, "README.md"), "utf8");
  const code = /```python\n([^]*?)\n```/.exec(card)?.[1];
  if (code === undefined) throw new Error(`${folder}: its card has no code`);
  const script = `BASE = ${JSON.stringify(base)}\n${code}\n${check}`;
  const { stdout } = await promisify(execFile)(python, ["-c", script], {
    cwd: folder,
    env: { ...process.env, HF_HUB_OFFLINE: "1", TRANSFORMERS_VERBOSITY: "error" },
  });
  return stdout.trim();
}

/** That the model's head, wherever it stands in it, is the one of the file. */
export const headIsThere = `
import torch
from safetensors.torch import load_file
model = model if "model" in globals() else pipe.model
model.eval()
stored = load_file(f"heads/{task}/head.safetensors")
own = dict(model.named_parameters())
for name, tensor in stored.items():
    saved = name.replace("classifier.", "classifier.modules_to_save.default.")
    found = [p for key, p in own.items() if key.endswith(name) or key.endswith(saved)]
    assert any(p.shape == tensor.shape and torch.equal(p.detach(), tensor.to(p.dtype)) for p in found), name
print("right")
`;
