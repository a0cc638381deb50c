import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, expect, test } from "vitest";
import { embeddingForm, keepEmbeddingFiles } from "../../src/inputs/embedding-form.js";
import { packageFolder } from "../../src/package.js";
import { temporaryFolder } from "../helpers.js";

/** A folder as sentence-transformers 6 writes it: cls, a dense layer of five outputs with tanh, normalised. */
const saved = join(packageFolder, "test", "golden", "embedding");
const place = await temporaryFolder();
const folder = join(place, "model");

beforeEach(async () => {
  await rm(folder, { recursive: true, force: true });
  await cp(saved, folder, { recursive: true });
});

const edit = async (file: string, change: (json: never) => unknown): Promise<void> => {
  const path = join(folder, file);
  const before = JSON.parse(await readFile(path, "utf8")) as never;
  await writeFile(path, JSON.stringify(change(before)));
};

/** What is said when vectors are asked for. */
const refusal = async (folders = [folder]): Promise<string> => {
  const form = await embeddingForm(folders);
  try {
    form();
    return "";
  } catch (error) {
    return (error as Error).message;
  }
};

test("a folder of sentence-transformers says pooling and dense layers", async () => {
  const form = (await embeddingForm([folder]))();
  expect(form.pooling).toBe("cls");
  expect(form.dense.map(({ out, activation, weight }) => [out, activation, weight.length])).toEqual([
    [5, "tanh", 480],
  ]);
});

test("older versions say the pooling by flags", async () => {
  await edit("1_Pooling/config.json", () => ({
    word_embedding_dimension: 96,
    pooling_mode_cls_token: false,
    pooling_mode_mean_sqrt_len_tokens: true,
  }));
  expect((await embeddingForm([folder]))().pooling).toBe("mean_sqrt_len");
});

test("a folder without modules is taken for the mean of all tokens", async () => {
  await rm(join(folder, "modules.json"));
  expect((await embeddingForm([folder]))()).toEqual({ pooling: "mean", dense: [] });
});

const changes: [file: string, change: (json: never) => unknown, says: RegExp][] = [
  ["1_Pooling/config.json", () => ({ pooling_mode: "max" }), /the pooling is max; one of cls, mean/],
  ["1_Pooling/config.json", () => ({ pooling_mode: ["cls", "mean"] }), /the pooling is cls and mean/],
  ["1_Pooling/config.json", () => ({}), /the pooling is none/],
  [
    "2_Dense/config.json",
    (json: object) => ({ ...json, out_features: 6 }),
    /"linear.weight" has 480 entries, not 576/,
  ],
  [
    "2_Dense/config.json",
    (json: object) => ({ ...json, activation_function: "torch.nn.ReLU" }),
    /relu is not supported/,
  ],
  [
    "2_Dense/config.json",
    (json: object) => ({ ...json, module_input_name: "token_embeddings" }),
    /module_input_name/,
  ],
  [
    "modules.json",
    (json: unknown[]) => json.toReversed(),
    /the modules are Normalize, Dense, Pooling, Transformer/,
  ],
  [
    "modules.json",
    (json: { path: string }[]) => json.map((one) => ({ ...one, path: "../x" })),
    /name of a folder/,
  ],
  ["sentence_bert_config.json", () => ({ do_lower_case: true }), /do_lower_case is not supported/],
  ["config_sentence_transformers.json", () => ({ prompts: { query: "query: " } }), /the prompt "query"/],
  ["config_sentence_transformers.json", () => ({ similarity_fn_name: "dot" }), /only cosine is supported/],
];
test.each(changes)("%s: what is not done as it says is refused (%#)", async (file, change, says) => {
  await edit(file, change);
  expect(await refusal()).toMatch(says);
});

test("an expert that makes vectors in another way is refused", async () => {
  const expert = join(place, "expert");
  await cp(folder, expert, { recursive: true });
  expect(await refusal([folder, expert])).toBe("");
  await edit("1_Pooling/config.json", () => ({ pooling_mode: "mean" }));
  expect(await refusal([folder, expert])).toMatch(/in another way/);
});

test("a result has modules that say what was measured, and the base's own stay", async () => {
  const out = join(place, "out");
  await mkdir(out);
  await keepEmbeddingFiles(out, { width: 96, maxLength: 48 });
  expect((await embeddingForm([out]))()).toEqual({ pooling: "mean", dense: [] });
  const before = await readFile(join(folder, "modules.json"), "utf8");
  await keepEmbeddingFiles(folder, { width: 96, maxLength: 48 });
  expect(await readFile(join(folder, "modules.json"), "utf8")).toBe(before);
});
