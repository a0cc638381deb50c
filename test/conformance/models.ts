import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { tensor2d, type Tensor2D } from "@tensorflow/tfjs-core";
import { describe, expect, test } from "vitest";
import { openFamily, openMember, type Family } from "../../src/checkpoint/family.js";
import type { Residency } from "../../src/merge/residency.js";
import { columnOf } from "../../src/merge/source.js";
import { loadTaskVectors, type TaskVectors } from "../../src/merge/vectors.js";
import { clipText } from "../../src/models/clip.js";
import type { Head } from "../../src/models/layers.js";
import { familyOf, forward } from "../../src/models/index.js";
import { imageRow } from "../../src/models/patches.js";
import type { Model, TokenRow } from "../../src/models/types.js";
import { packageFolder } from "../../src/package.js";
import { disposeHead, loadHead } from "../../src/inputs/prepare.js";
import { loadWeights } from "../../src/statistics/weights.js";
import { relativeError } from "../helpers.js";
import { flat, rankedBatch } from "./load.js";
import { expectMerge, type GoldenMerge } from "./merged.js";

const folder = join(packageFolder, "test", "golden", "models");

interface Golden extends GoldenMerge {
  pixels?: number[][][][];
  head?: number[][];
  features?: number[][];
}
export const read = (name: string): Golden =>
  JSON.parse(readFileSync(join(folder, name, "golden.json"), "utf8")) as Golden;

/** A case's model with its two experts. */
export async function openCase(
  name: string,
  g = read(name),
  residency: Residency = "device",
): Promise<{
  family: Family;
  model: Model;
  vectors: TaskVectors;
  canonical: (name: string) => string;
  heads: (Head | undefined)[];
  close(): Promise<void>;
}> {
  const config = JSON.parse(readFileSync(join(folder, name, "base", "config.json"), "utf8")) as Record<
    string,
    unknown
  >;
  const { canonical, build, head } = familyOf(config, name);
  const outputLayer = g.rows.some(({ targets }) => targets) ? "score" : "pool";
  const family = await openFamily(
    await openMember("base", join(folder, name, "base"), canonical),
    ["a", "b"].map((task) => ({ task, folder: join(folder, name, task) })),
    canonical,
  );
  const heads: (Head | undefined)[] = [];
  for (const expert of family.experts)
    heads.push(
      g.head
        ? { weight: tensor2d(g.head) }
        : await loadHead(expert, outputLayer === "score" ? undefined : ofMember(head, expert.actual), "row"),
    );
  const model = build(config, { outputLayer, has: (wanted) => family.base.actual.has(wanted) });
  const vectors = await loadTaskVectors(
    { base: family.base, columns: family.experts.map(columnOf) },
    [...model.parameters.keys()],
    { tables: model.tables, residency },
  );
  const close = async () => {
    vectors.dispose();
    heads.forEach(disposeHead);
    await family.close();
  };
  return { family, model, vectors, canonical, heads, close };
}

/** RoBERTa's and BERT's heads have biases, GPT-2's and Llama's none. */
const ofMember = (head: ReturnType<typeof familyOf>["head"], actual: ReadonlyMap<string, string>) =>
  head && head.bias !== undefined && !actual.has(head.bias) ? { ...head, bias: undefined } : head;

export const rowsOf = (g: Golden, model: Model): TokenRow[] =>
  g.pixels
    ? g.pixels.map((image) =>
        imageRow(() => Float32Array.from(image.flat(2)), { ...model.image!, size: image[0]!.length }),
      )
    : g.rows.map(({ ids, targets }) => ({ ids, types: ids.map(() => 0), targets }));

/** Cases that differ from another by a form which a further one has: a slow engine is spared them. */
const coveredByOthers = new Set(
  (
    "mpnet-choice electra-choice albert-choice distilbert-choice modernbert-choice " +
    "gpt2-head qwen3-head gemma3-head olmo2-head falcon-11b falcon-serial dinov2 bart-relu"
  ).split(" "),
);

/** Every model family against transformers: logits, loss and ∂L/∂w, whole and block by block. */
export function modelTests(tolerance: number, slow: boolean): void {
  // Which cases there must be, test/models/families.test.ts says.
  const cases = readdirSync(folder).filter((name) => existsSync(join(folder, name, "a")));
  const tried = cases.filter((name) => !slow || !coveredByOthers.has(name));
  test.each(tried)("%s: experts, merged logits, loss and ∂L/∂w equal transformers'", async (name) => {
    const g = read(name);
    const { model, vectors, canonical, heads, close } = await openCase(name, g);
    const batch = rankedBatch(rowsOf(g, model), g);
    const rowByName = new Map(g.layers.map((layer, row) => [canonical(layer), row]));
    const order = vectors.layers.map(({ id }) => rowByName.get(id)!);
    expect(order.filter((row) => row === undefined)).toEqual([]);
    await expectMerge(g, model, vectors, heads, batch, order, slow ? [true] : [false, true], tolerance);
    await close();
  });

  describe("CLIP's text tower", () => {
    test("features equal transformers'", async () => {
      const g = read("clip-text");
      const member = await openMember("base", join(folder, "clip-text", "base"), (name) => name);
      const model = clipText(member.checkpoint.config);
      const weights = await loadWeights(model, member);
      const at = new Map(weights.names.map((name, i) => [name, i]));
      const features: Tensor2D = forward(
        model,
        (name) => weights.tensors[at.get(name)!]!,
        g.rows.map(({ ids }) => ({ ids, types: [] })),
      );
      expect(relativeError(await features.data(), flat(g.features))).toBeLessThan(tolerance);
      features.dispose();
      weights.dispose();
      await member.checkpoint.close();
    });
  });
}
