import { availableParallelism } from "node:os";

/**
 * The environment of a Python that is measured. It gets the libraries that it would find by itself,
 * whatever a card's Vulkan driver needs (scripts/gpu), and asks no network for models.
 */
export function pythonEnvironment(): NodeJS.ProcessEnv {
  const own = process.env["TRAIN_MERGE_PYTHON_LIBRARIES"];
  const libraries = own === undefined ? {} : { LD_LIBRARY_PATH: own };
  return { ...process.env, ...libraries, HF_HUB_OFFLINE: "1", TF_CPP_MIN_LOG_LEVEL: "2" };
}

/** What every process may use: all cores, on both sides. */
export const cores = availableParallelism();
