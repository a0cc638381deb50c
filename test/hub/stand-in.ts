/** A stand-in of the hub: models and datasets of some folders, by their ids. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join, relative, sep } from "node:path";

export const standInCommit = "00112233445566778899aabbccddeeff00112233";

/** What the hub lists of a folder. */
async function listed(folder: string): Promise<object[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep).join("/"));
  return Promise.all(
    files.map(async (path) => {
      const bytes = await readFile(join(folder, path));
      const oid = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
      const hash = createHash("sha256").update(bytes).digest("hex");
      const lfs = path.endsWith(".safetensors") && {
        lfs: { oid: hash, size: bytes.length, pointerSize: 100 },
      };
      return { type: "file", path, size: bytes.length, oid, ...lfs };
    }),
  );
}

/**
 * Serves `root`/org/name as the model org/name, and `root`/datasets/org/name as the dataset.
 * @returns its address, and what ends it
 */
export async function standInHub(root: string): Promise<{ readonly url: string; close(): void }> {
  const server = createServer((request, response) => {
    const asked = new URL(request.url ?? "/", "http://here").pathname.replace(/^\/api(\/models)?/, "");
    const [, kind = "", name, what, path] =
      /^(\/datasets)?\/([\w.-]+\/[\w.-]+)\/(revision|tree|resolve)\/[\w%.-]+\/?([\w./-]*)$/.exec(asked) ?? [];
    const folder = join(root, kind, name ?? "none");
    const json = (body: unknown) =>
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
    const answer = async () => {
      if (!existsSync(folder)) return response.writeHead(404).end();
      if (what === "revision")
        return json({
          _id: "1",
          id: name,
          sha: standInCommit,
          private: false,
          downloads: 1,
          likes: 1,
          lastModified: "",
        });
      if (what === "tree") return json(await listed(folder));
      return response.writeHead(200).end(await readFile(join(folder, path ?? "")));
    };
    void answer();
  });
  await new Promise<void>((done) => void server.listen(0, "127.0.0.1", done));
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close };
}
