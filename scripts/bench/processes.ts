import { availableParallelism } from "node:os";

/**
 * The environment of a Python that is measured. It gets the libraries that it would find by itself,
 * whatever a card's Vulkan driver needs (scripts/gpu), and asks no network for models.
 */
export function pythonEnvironment(): NodeJS.ProcessEnv {
  const own = process.env["TRAIN_MERGE_PYTHON_LIBRARIES"];
  const libraries = own === undefined ? {} : { LD_LIBRARY_PATH: own };
  return { ...process.env, ...libraries, HF_HUB_OFFLINE: "1" };
}

/** The last line that a program printed: its answer. */
export const lastLine = (printed: string): string => printed.trim().split("\n").at(-1) ?? "";

/** The line of what a program complained that says why it ended. */
export function reasonIn(complaint: string): string {
  const lines = complaint.split("\n").filter((line) => line.trim() !== "");
  const named = lines.find((line) => /Error: |out of memory/i.test(line));
  return (named ?? lines.at(-1) ?? "it did not say why").trim();
}

/** What every process may use: all cores, on both sides. */
export const cores = availableParallelism();
