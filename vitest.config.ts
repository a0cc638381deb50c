import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Each engine is one global state of tfjs: a process for each test file.
    pool: "forks",
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
