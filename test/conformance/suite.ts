import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, vi } from "vitest";
import { runningOn, startEngine, type EngineName } from "../../src/backend/index.js";
import { packageFolder } from "../../src/package.js";
import { hasShared, realFamily, shared } from "../helpers.js";
import { adapterTests } from "./adapters.js";
import { baseTests } from "./base.js";
import { distilTests } from "./distil.js";
import { embeddingTests } from "./embedding.js";
import { familyTests } from "./family.js";
import { finetuneTests } from "./finetune.js";
import { generationTests } from "./generation.js";
import { kindTests } from "./kinds.js";
import { limitTests } from "./limits.js";
import { load, type Loaded } from "./load.js";
import { mergeTests } from "./merge.js";
import { modelTests } from "./models.js";
import { opTests } from "./ops.js";
import { productTests } from "./products.js";
import { tableTests } from "./tables.js";
import { statisticsTests } from "./statistics.js";
import { trainerTests } from "./trainer.js";

/** Parts of the suite, for engines so slow (or cards so dear) that they are tried side by side. */
const suiteParts = ["ops", "models", "words"] as const;
type SuitePart = (typeof suiteParts)[number];

interface Options {
  readonly tolerance?: number;
  readonly slow?: boolean;
  readonly parts?: readonly SuitePart[];
}

/**
 * The suite every engine must pass. A `slow` one, as an emulated card is, is spared the
 * 22.7-million-parameter family.
 */
export async function conformance(
  name: EngineName,
  { tolerance = 1e-4, slow: known = false, parts = suiteParts }: Options = {},
): Promise<void> {
  const problem = await startEngine(name).then(
    () => undefined,
    (error: Error) => error.message,
  );
  const slow = known || runningOn()?.emulated === true;
  if (slow) vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });
  if (problem !== undefined) console.log(`conformance of ${name} skipped: ${problem}`);
  describe.skipIf(problem !== undefined)(
    `${name}${problem === undefined ? "" : ` (skipped: ${problem})`}`,
    () => {
      if (parts.includes("ops")) {
        describe("ops", () => opTests(1e-5));
        describe("products", () => productTests(1e-5));
        describe("merge", mergeTests);
        describe("a base in fewer bits", baseTests);
        describe("embeddings on the device", () => tableTests(1e-5, slow));
        describe("the family that ships", () => {
          let mini: Loaded;
          beforeAll(async () => {
            mini = await load(join(packageFolder, "checkpoints", "mini"), "mini");
            return () => mini.dispose();
          });
          familyTests(() => mini, join(packageFolder, "data", "mini"), tolerance);
          trainerTests(() => mini, slow);
          statisticsTests(tolerance, slow);
        });
      }
      if (parts.includes("models")) {
        describe("adapters", () => adapterTests(tolerance, slow));
        describe("model families", () => modelTests(tolerance, slow));
        describe("kinds of answers", () => kindTests(tolerance, slow));
        describe("embedding models", () => embeddingTests(tolerance, slow));
        describe("tensors over the engine's limit", () => limitTests(tolerance, slow));
      }
      if (parts.includes("words")) {
        describe("fine-tuning", finetuneTests);
        describe("what language models say", () => generationTests(tolerance, slow));
        describe("distillation, token by token", () => distilTests(tolerance, slow));
      }
      if (!parts.includes("ops")) return;
      const tooSlow = slow ? "too slow on this engine" : undefined;
      const reason = hasShared ? tooSlow : "../shared is not here";
      if (reason !== undefined && problem === undefined) console.log(`${name}, MiniLM skipped: ${reason}`);
      describe.skipIf(reason !== undefined)(
        `MiniLM${reason === undefined ? "" : ` (skipped: ${reason})`}`,
        () => {
          let minilm: Loaded;
          beforeAll(async () => {
            if (!existsSync(join(realFamily, "base")))
              execFileSync("bash", [join(shared, "checkpoints", "minilm", "assemble"), realFamily]);
            minilm = await load(realFamily, "minilm");
            return () => minilm.dispose();
          });
          familyTests(() => minilm, join(shared, "data", "text"), tolerance);
        },
      );
    },
  );
}
