import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** Files that take longest, in that order: begun last, one of them would run on alone. */
const longest = [
  "conformance/webgpu-models",
  "conformance/webgpu-words",
  "conformance/webgpu",
  "cli/main-job",
  "cli/merge",
  "conformance/wasm",
  "conformance/cpu",
  "cli/tree",
];

const place = ({ moduleId }: TestSpecification): number => {
  const found = longest.findIndex((name) => moduleId.includes(`/test/${name}.`));
  return found < 0 ? longest.length : found;
};

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    return sorted.sort((a, b) => place(a) - place(b));
  }
}

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Each engine is one global state of tfjs: a process for each test file.
    pool: "forks",
    // Vitest leaves a core to itself, which on two cores means one file at a time; its own share is small.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    sequence: { sequencer: LongestFirst },
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
