import { createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeEach, expect, test } from "vitest";
import { pushFolder } from "../../src/hub/push.js";
import { pushResult } from "../../src/run/push.js";
import { temporaryFolder } from "../helpers.js";

/** What a stand-in of the hub holds, and what it was asked. */
const hub = {
  made: undefined as string | undefined,
  files: new Map<string, { oid: string; sha256?: string; size: number }>(),
  objects: new Map<string, number>(),
  commits: [] as string[][],
  tokens: new Set<string | undefined>(),
  /** Large files that may still be uploaded before the connection breaks. */
  uploads: Infinity,
};

const bodyOf = async (request: IncomingMessage): Promise<Buffer> => {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
};
const gitHash = (bytes: Buffer): string =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

interface CommitLine {
  key: string;
  value: { path: string; content?: string; oid?: string; size?: number };
}

const server = createServer((request, response) => {
  const path = new URL(request.url ?? "/", "http://here").pathname;
  const json = (body: unknown, status = 200) =>
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  const answer = async () => {
    const body = await bodyOf(request);
    if (!path.startsWith("/objects/")) hub.tokens.add(request.headers.authorization);
    if (request.headers.authorization === "Bearer hf_wrong") return json({ error: "no" }, 403);
    if (path === "/api/repos/create") {
      hub.made = (JSON.parse(body.toString()) as { visibility: string }).visibility;
      return json({ url: "http://here/me/merge", id: "1" });
    }
    if (path === "/api/models/me/merge") return hub.made ? json({ likes: 0 }) : json({ error: "none" }, 404);
    if (path.includes("/tree/"))
      return json(
        [...hub.files].map(([name, { oid, sha256, size }]) => ({
          type: "file",
          path: name,
          oid,
          size,
          ...(sha256 && { lfs: { oid: sha256, size, pointerSize: 100 } }),
        })),
      );
    if (path.includes("/preupload/")) {
      const { files } = JSON.parse(body.toString()) as { files: { path: string }[] };
      return json({
        files: files.map((one) => ({
          path: one.path,
          uploadMode: one.path.endsWith(".safetensors") ? "lfs" : "regular",
        })),
      });
    }
    if (path.endsWith("/objects/batch")) {
      const { objects } = JSON.parse(body.toString()) as { objects: { oid: string; size: number }[] };
      const href = (oid: string) => `http://${request.headers.host}/objects/${oid}`;
      return json({
        transfer: "basic",
        objects: objects.map(({ oid, size }) => ({
          oid,
          size,
          ...(!hub.objects.has(oid) && { actions: { upload: { href: href(oid) } } }),
        })),
      });
    }
    if (path.startsWith("/objects/")) {
      if (hub.uploads-- <= 0) return request.socket.destroy();
      const oid = createHash("sha256").update(body).digest("hex");
      if (oid !== path.slice("/objects/".length)) return json({ error: "other bytes" }, 422);
      hub.objects.set(oid, body.length);
      return json({});
    }
    if (path.includes("/commit/")) {
      const lines = body
        .toString()
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as CommitLine);
      const files = lines.filter(({ key }) => key === "file" || key === "lfsFile").map(({ value }) => value);
      for (const { key, value } of lines) if (key === "deletedFile") hub.files.delete(value.path);
      for (const { path: name, content, oid, size } of files) {
        const bytes = Buffer.from(content ?? "", "base64");
        hub.files.set(name, {
          oid: content === undefined ? "pointer" : gitHash(bytes),
          ...(oid !== undefined && { sha256: oid }),
          size: size ?? bytes.length,
        });
      }
      hub.commits.push(files.map(({ path: name }) => name).sort());
      return json({ commitOid: "1", commitUrl: "http://here", hookOutput: "" });
    }
    return json({ error: path }, 404);
  };
  void answer();
});
await new Promise<void>((done) => void server.listen(0, "127.0.0.1", done));
afterAll(() => {
  server.closeAllConnections();
  server.close();
});
process.env["HF_ENDPOINT"] = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

const root = await temporaryFolder();
const out = join(root, "out");
await mkdir(join(out, "tasks", "mood"), { recursive: true });
const weights = Buffer.alloc(11e6, 7);
await writeFile(join(out, "model.safetensors"), weights);
await writeFile(join(out, "tasks", "mood", "model-00001-of-00002.safetensors"), weights);
await writeFile(join(out, "config.json"), "{}");
await writeFile(join(out, "README.md"), "# a card");
await writeFile(join(out, "run.json"), '{"data": "path:../data"}');
await writeFile(join(out, "results.json"), '{"rows": [], "search": {}, "settings": {}}');
const all = ["README.md", "config.json", "model.safetensors", "results.json"];
const linked = "tasks/mood/model-00001-of-00002.safetensors";

const hooks = { note: () => {}, progress: () => {} };
const options = { repo: "me/merge", isPublic: false };

beforeEach(() => {
  process.env["HF_TOKEN"] = "hf_mine";
  Object.assign(hub, {
    made: undefined,
    files: new Map(),
    objects: new Map(),
    commits: [],
    tokens: new Set(),
  });
  hub.uploads = Infinity;
});

test("a result goes to a private repository: large files one by one, the others last, together", async () => {
  const pushed = await pushResult(out, options, hooks);
  expect(pushed.uploaded).toEqual([...all, linked]);
  expect(hub.made).toBe("private");
  expect(hub.commits).toEqual([
    ["model.safetensors"],
    [linked],
    ["README.md", "config.json", "results.json"],
  ]);
  expect(hub.objects.size, "one content is uploaded once").toBe(1);
  expect([...hub.files.keys()], "what names this machine stays here").not.toContain("run.json");
  expect([...hub.tokens]).toEqual(["Bearer hf_mine"]);
});

test("what is there already is not uploaded again, and what changed is", async () => {
  await pushResult(out, options, hooks);
  const again = await pushResult(out, options, hooks);
  expect(again.uploaded).toEqual([]);
  expect(again.kept).toEqual([...all, linked]);
  hub.files.set("config.json", { oid: gitHash(Buffer.from("other")), size: 5 });
  expect((await pushResult(out, options, hooks)).uploaded).toEqual(["config.json"]);
});

test("weights of an earlier result go with the last commit, others' stay", async () => {
  const earlier = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin"];
  const kept = ["notes.md", "onnx/model.bin"];
  for (const path of [...earlier, ...kept]) hub.files.set(path, { oid: "0", size: 1 });
  hub.made = "public, by its owner";
  const notes: string[] = [];
  await pushResult(out, options, { ...hooks, note: (line) => notes.push(line) });
  for (const path of earlier) expect([...hub.files.keys()]).not.toContain(path);
  for (const path of [...kept, ...all]) expect([...hub.files.keys()]).toContain(path);
  expect(notes).toContain(`removed from me/merge: ${earlier.join(", ")}`);
});

test("an upload that breaks off goes on when it is run again", async () => {
  const other = join(root, "other");
  await mkdir(other);
  for (const [i, name] of ["a", "b"].entries())
    await writeFile(join(other, `${name}.safetensors`), Buffer.alloc(11e6, i + 1));
  const files = ["a.safetensors", "b.safetensors"];
  hub.uploads = 1;
  await expect(pushFolder(other, files, options, hooks)).rejects.toThrow();
  expect(hub.commits).toEqual([["a.safetensors"]]);
  hub.uploads = Infinity;
  const pushed = await pushFolder(other, files, options, hooks);
  expect(pushed).toMatchObject({ uploaded: ["b.safetensors"], kept: ["a.safetensors"] });
});

test("a public repository is made where that is asked for; one that is there is used", async () => {
  await pushFolder(out, ["config.json"], { ...options, isPublic: true }, hooks);
  expect(hub.made).toBe("public");
  hub.made = "public, by its owner";
  await pushFolder(out, ["README.md"], options, hooks);
  expect(hub.made).toBe("public, by its owner");
});

test("what cannot be pushed is refused in a line", async () => {
  await expect(pushResult(join(out, "tasks"), options, hooks)).rejects.toThrow(/holds no finished result/);
  await expect(pushResult(out, { ...options, repo: "merge" }, hooks)).rejects.toThrow(/--to org\/name/);
  process.env["HF_TOKEN"] = "hf_wrong";
  await expect(pushResult(out, options, hooks)).rejects.toThrow(
    /does not let this token write there \(403\)/,
  );
  process.env["HF_TOKEN"] = "abc";
  await expect(pushResult(out, options, hooks)).rejects.toThrow(/they begin with hf_/);
  delete process.env["HF_TOKEN"];
  process.env["HF_HOME"] = root;
  await expect(pushResult(out, options, hooks)).rejects.toThrow(/nobody is logged in to the hub/);
});
