import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { lstat, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { fetchModel, hubId } from "../../src/hub/hub.js";
import { packageFolder } from "../../src/package.js";
import { expectSameBytes, temporaryFolder } from "../helpers.js";
import { cliIn } from "../cli/cli.js";

const folder = await temporaryFolder();
const commit = "0123456789abcdef0123456789abcdef01234567";
const mini = join(packageFolder, "checkpoints", "mini");

/** What the server does with the next requests for a file's bytes. */
let misbehave: { cut?: number; change?: boolean; noRanges?: boolean } = {};
let asked: { path: string; range: string | undefined; token: string | undefined; moved: boolean }[] = [];

const models: Record<string, string> = {
  "tiny/base": join(mini, "base"),
  "tiny/rte": join(mini, "experts", "rte"),
  "tiny/cb": join(mini, "experts", "cb"),
  "tiny/copa": join(mini, "experts", "copa"),
};

/**
 * A server that speaks the hub's protocol, over the family that ships: a model's commit, its files,
 * their bytes behind a redirect.
 */
const server = createServer((request, response) => void answer(request, response));
async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url!, "http://here");
  const send = (status: number, body: unknown) =>
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  const info = /^\/api\/models\/(\w+\/\w+)\/revision\/([\w%-]+)$/.exec(url.pathname);
  const tree = /^\/api\/models\/(\w+\/\w+)\/tree\//.exec(url.pathname);
  const file = /^\/(moved\/)?(\w+\/\w+)\/resolve\/([0-9a-f]+)\/(.+)$/.exec(url.pathname);
  const model = models[(info ?? tree)?.[1] ?? file?.[2] ?? ""];
  if (model === undefined) return void send(404, { error: "Repository not found" });
  if (info)
    return void send(200, {
      _id: "1",
      id: info[1],
      sha: commit,
      private: false,
      downloads: 1,
      likes: 1,
      lastModified: "2026-01-01T00:00:00.000Z",
    });
  if (tree) {
    const entries = await Promise.all(
      (await readdir(model)).map(async (path) => {
        const bytes = await readFile(join(model, path));
        const git = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
        return {
          type: "file",
          path,
          size: bytes.length,
          oid: git,
          ...(path.endsWith(".safetensors") && {
            lfs: {
              oid: createHash("sha256").update(bytes).digest("hex"),
              size: bytes.length,
              pointerSize: 100,
            },
          }),
        };
      }),
    );
    return void send(200, [
      ...entries,
      { type: "file", path: "pytorch_model.bin", size: 5, oid: "0".repeat(40) },
    ]);
  }
  const [, moved, , , path] = file!;
  asked.push({
    path: path!,
    range: request.headers.range,
    token: request.headers.authorization,
    moved: moved !== undefined,
  });
  if (!moved) return void response.writeHead(302, { location: `/moved${url.pathname}` }).end();
  let bytes = await readFile(join(model, path!));
  const large = path!.endsWith(".safetensors");
  if (misbehave.change && large)
    bytes = Buffer.from(bytes.map((byte, i) => (i === bytes.length - 1 ? byte ^ 1 : byte)));
  const from = misbehave.noRanges ? 0 : Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
  response.writeHead(from > 0 ? 206 : 200, { "content-length": bytes.length - from });
  if (misbehave.cut !== undefined && large && misbehave.cut > from) {
    // The connection breaks in the middle.
    response.write(bytes.subarray(from, misbehave.cut), () => setTimeout(() => response.destroy(), 20));
    misbehave = {};
    return;
  }
  response.end(bytes.subarray(from));
}

const cache = join(folder, "cache");
const repository = join(cache, "models--tiny--rte");
const hooks = { note: () => {}, progress: () => {} };
const rte = { name: "tiny/rte", revision: "main" };

beforeAll(async () => {
  await new Promise<void>((done) => void server.listen(0, "127.0.0.1", done));
  Object.assign(process.env, {
    HF_ENDPOINT: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    HF_HUB_CACHE: cache,
    HF_HOME: join(folder, "home"),
    HF_TOKEN: "",
  });
});
afterAll(() => void server.close());
beforeEach(async () => {
  misbehave = {};
  asked = [];
  delete process.env["HF_HUB_OFFLINE"];
  await rm(cache, { recursive: true, force: true });
});

test("what is an id and what is not", () => {
  expect(hubId("tiny/rte")).toEqual(rte);
  expect(hubId("tiny/rte@v1.0")).toEqual({ name: "tiny/rte", revision: "v1.0" });
  for (const text of [".", "/tmp/x", "a/b/c", "../up/x", "x", "tiny/rte@../x"])
    expect(hubId(text)).toBeUndefined();
});

test("a model comes into the usual cache: blobs, links, the ref; what is there is not fetched again", async () => {
  const found = await fetchModel(rte, hooks);
  expect(found).toEqual({ folder: join(repository, "snapshots", commit), commit });
  expect((await lstat(join(found.folder, "model.safetensors"))).isSymbolicLink()).toBe(true);
  for (const file of ["config.json", "model.safetensors"])
    await expectSameBytes(join(found.folder, file), join(mini, "experts", "rte", file));
  expect(await readFile(join(repository, "refs", "main"), "utf8")).toBe(commit);
  expect(existsSync(join(found.folder, "pytorch_model.bin"))).toBe(false);
  expect(asked.length).toBeGreaterThan(0);
  asked = [];
  await fetchModel(rte, hooks);
  expect(asked).toEqual([]);
  process.env["HF_HUB_OFFLINE"] = "1";
  expect(await fetchModel(rte, hooks)).toEqual(found);
  await expect(fetchModel({ name: "tiny/base", revision: "main" }, hooks)).rejects.toThrow(
    /not in the cache .* HF_HUB_OFFLINE is set/,
  );
});

test("a broken connection is taken up where it broke", async () => {
  misbehave = { cut: 100_000 };
  const { folder: got } = await fetchModel(rte, hooks);
  expect(
    asked.filter(({ path, moved }) => moved && path === "model.safetensors").map(({ range }) => range),
  ).toEqual([undefined, "bytes=100000-"]);
  await expectSameBytes(join(got, "model.safetensors"), join(mini, "experts", "rte", "model.safetensors"));
});

test("what an earlier run left is gone on from, even where the server knows no ranges", async () => {
  await fetchModel(rte, hooks);
  const blobs = await readdir(join(repository, "blobs"));
  const large = blobs.find((name) => name.length === 64)!;
  const bytes = await readFile(join(repository, "blobs", large));
  for (const noRanges of [false, true]) {
    misbehave = { noRanges };
    await rm(join(repository, "blobs", large));
    await writeFile(join(repository, "blobs", `${large}.incomplete`), bytes.subarray(0, 5000));
    asked = [];
    await fetchModel(rte, hooks);
    expect(asked.at(-1)).toMatchObject({ range: "bytes=5000-" });
    expect((await readFile(join(repository, "blobs", large))).equals(bytes)).toBe(true);
  }
});

test("processes gather a file each for itself; what one that is gone has left is taken over", async () => {
  await fetchModel(rte, hooks);
  const blobs = join(repository, "blobs");
  const large = (await readdir(blobs)).find((name) => name.length === 64)!;
  const bytes = await readFile(join(blobs, large));
  const gone = spawnSync(process.execPath, ["-e", ""]).pid;
  const parts = {
    living: `${large}.${hostname()}.${process.ppid}.incomplete`,
    elsewhere: `${large}.${hostname()}-2.${gone}.incomplete`,
    gone: `${large}.${hostname()}.${gone}.incomplete`,
  };
  for (const [i, name] of Object.values(parts).entries())
    await writeFile(join(blobs, name), bytes.subarray(0, 1000 * (i + 1)));
  await rm(join(blobs, large));
  asked = [];
  await fetchModel(rte, hooks);
  expect(asked.at(-1)).toMatchObject({ range: "bytes=3000-" });
  expect((await readFile(join(blobs, large))).equals(bytes)).toBe(true);
  expect(new Set((await readdir(blobs)).filter((name) => name.endsWith(".incomplete")))).toEqual(
    new Set([parts.living, parts.elsewhere]),
  );
});

test("bytes of another hash are refused, and leave nothing", async () => {
  misbehave = { change: true };
  await expect(fetchModel(rte, hooks)).rejects.toThrow(
    /its bytes do not hash to [0-9a-f]{64}, which the hub lists/,
  );
  expect(
    (await readdir(join(repository, "blobs"))).filter(
      (name) => name.startsWith("model") || name.endsWith(".incomplete") || name.length === 64,
    ),
  ).toEqual([]);
});

test("the token is sent from its standard place, and written nowhere", async () => {
  process.env["HF_TOKEN"] = "hf_secret";
  await fetchModel(rte, hooks);
  process.env["HF_TOKEN"] = "";
  expect(asked.find(({ moved }) => !moved)!.token).toBe("Bearer hf_secret");
  for (const file of await readdir(cache, { recursive: true, withFileTypes: true }))
    if (file.isFile())
      expect((await readFile(join(file.parentPath, file.name))).includes("hf_secret")).toBe(false);
});

test("an unknown model is said to be one; an unreachable hub falls back on the cache", async () => {
  await expect(fetchModel({ name: "tiny/none", revision: "main" }, hooks)).rejects.toThrow(
    /tiny\/none@main: the hub has no such model, or access is denied \(404\)/,
  );
  const found = await fetchModel(rte, hooks);
  const before = process.env["HF_ENDPOINT"];
  process.env["HF_ENDPOINT"] = "http://127.0.0.1:9";
  expect(await fetchModel(rte, hooks)).toEqual(found);
  await expect(fetchModel({ name: "tiny/cb", revision: "main" }, hooks)).rejects.toThrow(/cannot be reached/);
  process.env["HF_ENDPOINT"] = before;
});

test("the command line takes ids where it takes folders, and records the commits", async () => {
  const cli = cliIn(folder);
  const out = await cli(
    "--tasks",
    "rte,cb",
    "--base",
    "tiny/base",
    "--experts",
    "rte=tiny/rte",
    "cb=tiny/cb@main",
    "--data",
    join(packageFolder, "data", "mini"),
    "--steps",
    "0",
    "--backend",
    "wasm",
    "--out",
    "out",
  );
  expect(out).toMatchObject({ code: 0 });
  expect(
    (
      JSON.parse(await readFile(join(folder, "out", "results.json"), "utf8")) as {
        settings: { hub: unknown };
      }
    ).settings.hub,
  ).toEqual({ "tiny/base": commit, "tiny/rte": commit, "tiny/cb@main": commit });
  const { stdout } = await cli("export", "out");
  for (const id of ["tiny/base", "tiny/rte", "tiny/cb"]) expect(stdout).toContain(`: ${id}@${commit}\n`);
  expect(
    await cli(
      "add",
      "tiny/copa",
      "--to",
      "out",
      "--base",
      "tiny/base",
      "--steps",
      "0",
      "--backend",
      "wasm",
      "--out",
      "more",
    ),
  ).toMatchObject({ code: 0 });
  expect(
    (
      JSON.parse(await readFile(join(folder, "more", "results.json"), "utf8")) as {
        settings: { hub: unknown };
      }
    ).settings.hub,
  ).toEqual({ "tiny/base": commit, "tiny/copa": commit });
  expect(
    await cli(
      "merge",
      "--method",
      "average",
      "--base",
      "tiny/base",
      "--experts",
      "tiny/rte",
      "tiny/cb",
      "--out",
      "averaged",
    ),
  ).toMatchObject({ code: 0 });
});
