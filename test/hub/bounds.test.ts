/** What a hub that means ill, or is broken, cannot do. */
import { existsSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { createGzip } from "node:zlib";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { HubBounds } from "../../src/hub/bounds.js";
import { fetchModel } from "../../src/hub/hub.js";
import { temporaryFolder } from "../helpers.js";

const folder = await temporaryFolder();
const cache = join(folder, "cache");
const commit = "0123456789abcdef0123456789abcdef01234567";
const bounds: HubBounds = { patience: 300, leastBytes: 1000, answerBytes: 1e6, requests: 5 };
const hooks = { note: () => {}, progress: () => {} };
const get = (own: Partial<HubBounds> = {}) =>
  fetchModel({ name: "some/model", revision: "main" }, hooks, { ...bounds, ...own });
/** Where it is not time that runs out. */
const patient = { patience: 20_000 };

interface Answers {
  info?(response: ServerResponse): void;
  tree?(response: ServerResponse, url: URL): void;
  file?(response: ServerResponse): void;
}
let answers: Answers = {};
let asked = 0;
const json = (response: ServerResponse, body: unknown) =>
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
const info = { _id: "1", id: "some/model", sha: commit, private: false, downloads: 1, likes: 1 };
const weights = { type: "file", path: "model.safetensors", size: 5000, oid: "a".repeat(40) };

const server = createServer((request, response) => {
  asked++;
  const url = new URL(request.url ?? "/", "http://here");
  if (url.pathname.includes("/revision/"))
    (answers.info ?? ((to) => json(to, { ...info, lastModified: "2026-01-01T00:00:00.000Z" })))(response);
  else if (url.pathname.includes("/tree/")) (answers.tree ?? ((to) => json(to, [weights])))(response, url);
  else (answers.file ?? ((to) => to.end(Buffer.alloc(5000))))(response);
});
let strangers = 0;
const stranger = createServer((_, response) => {
  strangers++;
  json(response, []);
});
const portOf = (one: typeof server) => (one.address() as AddressInfo).port;

beforeAll(async () => {
  for (const one of [server, stranger])
    await new Promise<void>((done) => void one.listen(0, "127.0.0.1", done));
  Object.assign(process.env, {
    HF_ENDPOINT: `http://127.0.0.1:${portOf(server)}`,
    HF_HUB_CACHE: cache,
    HF_HOME: join(folder, "home"),
    HF_TOKEN: "hf_secret",
  });
});
afterAll(() => {
  for (const one of [server, stranger]) {
    one.closeAllConnections();
    one.close();
  }
});
beforeEach(async () => {
  answers = {};
  [asked, strangers] = [0, 0];
  await rm(cache, { recursive: true, force: true });
});

/** Writes for as long as somebody reads. */
function endless(to: NodeJS.WritableStream, part: Buffer): void {
  const go = () => {
    while (to.write(part));
  };
  to.on("drain", go);
  to.on("error", () => {});
  go();
}

const linked = (response: ServerResponse, next: string) =>
  response
    .writeHead(200, { "content-type": "application/json", link: `<${next}>; rel="next"` })
    .end(JSON.stringify([weights]));

test("a list that goes in a circle, and one without end", async () => {
  answers = { tree: (to, url) => linked(to, `${process.env["HF_ENDPOINT"]}${url.pathname}?again`) };
  await expect(get(patient)).rejects.toThrow(/goes in a circle/);
  let page = 0;
  answers = { tree: (to, url) => linked(to, `${process.env["HF_ENDPOINT"]}${url.pathname}?page=${page++}`) };
  asked = 0;
  await expect(get(patient)).rejects.toThrow(/over 5 pages/);
  expect(asked).toBe(5);
});

test("another host is not asked, least of all with the token", async () => {
  answers = { tree: (to, url) => linked(to, `http://127.0.0.1:${portOf(stranger)}${url.pathname}`) };
  await expect(get(patient)).rejects.toThrow(
    /its list goes on at another host \(127\.0\.0\.1:\d+\), which is not asked/,
  );
  expect(strangers).toBe(0);
});

test("an answer without end, packed or not", async () => {
  answers = {
    info(to) {
      to.writeHead(200, { "content-type": "application/json" });
      endless(to, Buffer.alloc(1 << 16, " "));
    },
  };
  await expect(get(patient)).rejects.toThrow(/its answers about one model are over 0\.95\d+ MiB/);
  answers = {
    tree(to) {
      to.writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" });
      const zip = createGzip();
      zip.pipe(to);
      endless(zip, Buffer.alloc(1 << 20, " "));
    },
  };
  await expect(get(patient)).rejects.toThrow(/its answers about one model are over/);
});

test("a hub that says nothing, or a byte at a time", async () => {
  answers = { info: () => {} };
  await expect(get()).rejects.toThrow(/cannot be reached \(.*timeout/);
  answers = {
    info(to) {
      to.writeHead(200, { "content-type": "application/json" });
      const timer = setInterval(() => to.write(" "), 50);
      to.on("close", () => clearInterval(timer));
    },
  };
  await expect(get()).rejects.toThrow(/cannot be reached \(.*timeout/);
});

test("a file that trickles is given up", { timeout: 30_000 }, async () => {
  answers = {
    file(to) {
      const timer = setInterval(() => to.write("x"), 50);
      to.on("close", () => clearInterval(timer));
    },
  };
  await expect(get()).rejects.toThrow(/the connection broke, or the hub was busy or silent, 5 times/);
});

test.each([
  [1e15, /1000000\.0 GB are to be fetched, and [\d.]+ GB are free/],
  [-1, /the hub lists "model\.safetensors" with -1 bytes/],
  [1.5, /the hub lists "model\.safetensors" with 1\.5 bytes/],
])("a file of %d bytes is not begun", async (size, message) => {
  answers = { tree: (to) => json(to, [{ ...weights, size }]) };
  await expect(get(patient)).rejects.toThrow(message);
  const blobs = join(cache, "models--some--model", "blobs");
  expect(existsSync(blobs) ? await readdir(blobs) : []).toEqual([]);
});
