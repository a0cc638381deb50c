import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { dataFromHub, datasetId } from "../../src/hub/datasets.js";
import { temporaryFolder } from "../helpers.js";
import { standInHub } from "./stand-in.js";

/** Datasets of the hub as data folders. */
const root = await temporaryFolder();
const served = join(root, "hub", "datasets");
const hub = await standInHub(join(root, "hub"));
afterAll(() => hub.close());
process.env["HF_ENDPOINT"] = hub.url;
process.env["HF_HOME"] = join(root, "hf");
delete process.env["HF_TOKEN"];

/** Puts files of a dataset on the hub; each holds its own path. */
async function put(name: string, ...paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    await mkdir(dirname(join(served, name, path)), { recursive: true });
    await writeFile(join(served, name, path), path);
  }
}
await put(
  "me/one",
  "data/train-00000-of-00002.parquet",
  "data/train-00001-of-00002.parquet",
  "data/test-00000-of-00001.parquet",
  "README.md",
);
await put("me/plain", "train.csv", "validation.csv", "test.csv");
await put("me/many", "en/train.jsonl", "en/test.jsonl", "de/train.jsonl", "de/test.jsonl");
await put("me/folders", "sst/train/0000.parquet", "sst/validation/0000.parquet");
await put("me/parts", "train-1.csv", "train-2.csv");
await put("me/script", "load.py");
const shard = "00000-of-00001.parquet";
await put(
  "me/rounds",
  ...["train", "dev", "test"].flatMap((split) => [1, 2].map((n) => `plain_text/${split}_r${n}-${shard}`)),
);
await put(
  "me/glue",
  `mnli/train-${shard}`,
  ...["matched", "mismatched"].map((part) => `mnli/validation_${part}-${shard}`),
);

const hooks = { note: () => {}, progress: () => {} };
const made = (datasets: Record<string, string>, data?: string) =>
  dataFromHub({ datasets, data, cache: join(root, "cache") }, hooks);

/** What a task's folder holds: names, and what each file is of. */
async function held(folder: string, task: string): Promise<Record<string, string>> {
  const names = (await readdir(join(folder, task))).sort();
  const read = names.map(async (name) => [name, await readFile(join(folder, task, name), "utf8")] as const);
  return Object.fromEntries(await Promise.all(read));
}

test("files of a dataset are a data folder's splits, shards in their order", async () => {
  const { folder, commits } = await made({ mood: "me/one", topic: "me/plain" });
  expect(await held(folder, "mood")).toEqual({
    "test.parquet": "data/test-00000-of-00001.parquet",
    "train-00000-of-00002.parquet": "data/train-00000-of-00002.parquet",
    "train-00001-of-00002.parquet": "data/train-00001-of-00002.parquet",
  });
  expect(Object.keys(await held(folder, "topic"))).toEqual(["test.csv", "train.csv", "validation.csv"]);
  expect(Object.keys(commits)).toEqual(["me/one", "me/plain"]);
});

test("a configuration is named, and asked for where there are several; a split may be a folder", async () => {
  const { folder } = await made({ mood: "me/many:de" });
  expect(await held(folder, "mood")).toEqual({
    "test.jsonl": "de/test.jsonl",
    "train.jsonl": "de/train.jsonl",
  });
  await expect(made({ mood: "me/many" })).rejects.toThrow(
    "me/many: name one of its configurations (en, de): me/many:en",
  );
  await expect(made({ mood: "me/many:fr" })).rejects.toThrow("name one of its configurations (en, de)");
  const folders = await made({ mood: "me/folders" });
  expect(Object.keys(await held(folders.folder, "mood"))).toEqual(["train.parquet", "validation.parquet"]);
});

test("of a split in several parts one is named; what has one part is that", async () => {
  const rounds = await made({ anli: "me/rounds:plain_text/r2" });
  expect(await held(rounds.folder, "anli")).toEqual({
    "train.parquet": `plain_text/train_r2-${shard}`,
    "validation.parquet": `plain_text/dev_r2-${shard}`,
    "test.parquet": `plain_text/test_r2-${shard}`,
  });
  const { folder } = await made({ mnli: "me/glue:mnli/matched" });
  expect(await held(folder, "mnli")).toEqual({
    "train.parquet": `mnli/train-${shard}`,
    "validation.parquet": `mnli/validation_matched-${shard}`,
  });
  for (const asked of ["me/rounds:plain_text", "me/rounds:plain_text/r3"])
    await expect(made({ anli: asked })).rejects.toThrow(
      `${asked}: its train split is of several parts (train_r1, train_r2); name one: org/name:config/part`,
    );
  await expect(made({ mood: "me/many:de/r3" })).rejects.toThrow(
    'me/many:de/r3: none of its files is of a part "r3"; there are test, train',
  );
});

test("other tasks stand beside, as they are in the data folder; the same again is the same folder", async () => {
  const data = join(root, "data");
  await mkdir(join(data, "own"), { recursive: true });
  await writeFile(join(data, "own", "test.jsonl"), "mine");
  await writeFile(join(data, "tasks.json"), "{}");
  const first = await made({ mood: "me/plain" }, data);
  expect((await readdir(first.folder)).sort()).toEqual(["mood", "own", "tasks.json"]);
  expect(await held(first.folder, "own")).toEqual({ "test.jsonl": "mine" });
  expect((await made({ mood: "me/plain" }, data)).folder).toBe(first.folder);
});

test("what is none, and what cannot be read as one, is refused in a line", async () => {
  expect(() => datasetId("plain")).toThrow("plain: a dataset of the hub is named org/name");
  expect(datasetId("me/one:de@main")).toEqual({
    name: "me/one",
    revision: "main",
    config: "de",
    part: undefined,
  });
  await expect(made({ mood: "me/parts" })).rejects.toThrow(
    "its train split is 2 files (train-1.csv, train-2.csv …)",
  );
  await expect(made({ mood: "me/script" })).rejects.toThrow("holds no files of splits");
  await expect(made({ mood: "me/nothing" })).rejects.toThrow(/me\/nothing/);
});
