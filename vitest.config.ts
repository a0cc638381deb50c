import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Each engine is one global state of tfjs: a process for each test file.
    pool: "forks",
    // Vitest leaves a core to itself, which on two cores means one file at a time; its own share is small.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
