import { defineConfig } from "vitest/config";

/** The unit tests that mutants are tried on: in process, on toy models and temporary files. */
export default defineConfig({
  test: {
    include: [
      "test/compare/*.test.ts",
      "test/evaluate/{baselines,toy-*}.test.ts",
      "test/inputs/placement.test.ts",
      "test/plan/{ledger,memory}.test.ts",
      "test/reproduce/{claims,judging}.test.ts",
      "test/tasks/{batches,cuts,splits,templates}.test.ts",
      "test/train/{adamw,loop}.test.ts",
      "test/tree/*.test.ts",
    ],
    testTimeout: 20_000,
  },
});
