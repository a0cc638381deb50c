import { rowsBatch } from "../../scripts/rows-batch.js";
import { fill, tensor, variable, zerosLike, type Tensor, type Variable } from "@tensorflow/tfjs-core";
import { expect, test } from "vitest";
import type { AdapterModules } from "../../src/adapter-modules.js";
import { withAdapters } from "../../src/models/adapters.js";
import { loadWeights } from "../../src/statistics/weights.js";
import { trainedHead, weightStep, type Trainee } from "../../src/train/weights.js";
import { golden } from "../helpers.js";
import { openCase, read } from "./models.js";

interface Golden {
  lr: number;
  weightDecay: number;
  clip: number;
  full: number[];
  lora: number[];
  factors: Record<string, { shape: number[]; values: number[] }>;
}

/** Fine-tuning's steps against PyTorch's: every weight, and LoRA beside them. */
export function finetuneTests(): void {
  const g = golden<Golden>("finetune");
  const options = { lr: g.lr, weightDecay: g.weightDecay, clip: g.clip };

  async function follow(kind: "full" | "lora", microBatch: number): Promise<number[]> {
    const one = read("bert-relu");
    const {
      model: plain,
      family: {
        experts: [a],
      },
      heads: [head],
      close,
    } = await openCase("bert-relu");
    const adapterModules: AdapterModules = new Map(
      kind === "full"
        ? []
        : Object.keys(g.factors)
            .filter((name) => name.endsWith("lora_A"))
            .map((name) => {
              const module = name.replace(".lora_A", "");
              return [
                module,
                {
                  lora: true,
                  shapes: [
                    [name, g.factors[name]!.shape],
                    [`${module}.lora_B`, g.factors[`${module}.lora_B`]!.shape],
                    [`${module}.lora_d`, [3]],
                  ] as const,
                },
              ] as const;
            }),
    );
    const model = withAdapters(plain, adapterModules);
    const loaded = await loadWeights(plain, a!);
    const fixed = new Map<string, Tensor>(loaded.names.map((name, i) => [name, loaded.tensors[i]!]));
    const start: [string, Tensor][] =
      kind === "full"
        ? [...fixed]
        : Object.entries(g.factors).map(([name, { shape, values }]) => [name, tensor(values, shape)]);
    for (const module of adapterModules.keys()) fixed.set(`${module}.lora_d`, fill([3], 2));
    const trained = new Map<string, Variable>(
      [...start, ["head/weight", head!.weight], ["head/bias", head!.bias!]].map(([name, value]) => [
        name as string,
        variable(value as Tensor),
      ]),
    );
    const trainee: Trainee = { model, fixed, trained };
    const moments = {
      first: new Map([...trained].map(([name, v]) => [name, variable(zerosLike(v))])),
      second: new Map([...trained].map(([name, v]) => [name, variable(zerosLike(v))])),
      taken: new Map<string, number>(),
    };
    const rows = one.rows.map(({ ids }) => ({ ids, types: ids.map(() => 0) }));
    const batch = rowsBatch("classify", rows, one.labels);
    const losses = [];
    for (let step = 0; step < g.full.length; step++)
      losses.push(
        await weightStep(trainee, moments, [{ head: trainedHead(trained, "head/"), batch, weight: 1 }], {
          ...options,
          microBatch,
        }),
      );
    for (const map of [trained, moments.first, moments.second]) for (const v of map.values()) v.dispose();
    loaded.dispose();
    await close();
    return losses;
  }

  test.each([
    ["full", 2048],
    ["full", 20],
    ["lora", 2048],
  ] as const)(
    "%s fine-tuning, passes of %d tokens: five steps lose what PyTorch's lose",
    async (kind, microBatch) => {
      const losses = await follow(kind, microBatch);
      for (const [step, loss] of losses.entries())
        expect(Math.abs(loss - g[kind][step]!) / g[kind][step]!, `step ${step}`).toBeLessThan(2e-4);
      expect(g[kind].at(-1)!).toBeLessThan(g[kind][0]!);
    },
  );
}
