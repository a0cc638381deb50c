/** Files with the features and in the shapes of those that people publish, on models of a stand-in of the hub. */
import { existsSync, readdirSync } from "node:fs";
import { copyFile, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { mergeByMergekitFile } from "../../src/mergers/mergekit-file.js";
import { packageFolder } from "../../src/package.js";
import { verify } from "../../src/run/verify.js";
import { temporaryFolder } from "../helpers.js";
import { standInHub } from "../hub/stand-in.js";
import { expectClose } from "./close.js";

const root = join(packageFolder, "test", "golden", "published");
const scratch = await temporaryFolder();
const hub = await standInHub(root);
afterAll(() => hub.close());
Object.assign(process.env, {
  HF_ENDPOINT: hub.url,
  HF_HUB_CACHE: join(scratch, "cache"),
  HF_HOME: join(scratch, "home"),
  HF_TOKEN: "",
});
delete process.env["HF_HUB_OFFLINE"];
const files = readdirSync(root).filter((file) => file.endsWith(".yml"));

test("there are mergekit's six and thirty of other people's", () => {
  expect(files.filter((file) => file.startsWith("example-"))).toHaveLength(6);
  expect(files.length).toBeGreaterThanOrEqual(36);
});

test.each(files)("%s", async (file) => {
  const text = await readFile(join(root, file), "utf8");
  const name = file.replace(".yml", "");
  const own = join(scratch, file);
  await copyFile(join(root, file), own);
  const out = join(scratch, name);
  const silent = { note() {}, progress() {}, stopping: () => false };
  await mergeByMergekitFile(own, { out, shardSize: 1e9, seed: 0 }, silent);
  await expectClose(
    join(out, "model.safetensors"),
    join(root, `${name}.safetensors`),
    !/dtype: \S*float32/.test(text),
  );
  const facts = JSON.parse(await readFile(join(root, `${name}.json`), "utf8")) as {
    layers: number;
    template?: string;
  };
  const config = JSON.parse(await readFile(join(out, "config.json"), "utf8")) as Record<string, unknown>;
  expect(config["num_hidden_layers"]).toBe(facts.layers);
  // A named template is ours, which says the same: chat-templates.test.ts.
  if (facts.template !== undefined && /chat_template: auto/.test(text))
    expect(await readFile(join(out, "chat_template.jinja"), "utf8")).toBe(facts.template);
  if (/chat_template/.test(text)) expect(existsSync(join(out, "chat_template.jinja"))).toBe(true);
  for (const check of await verify(out)) expect(check.ok, `${check.what}: ${check.detail}`).not.toBe(false);
});
