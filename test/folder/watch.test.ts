import { mkdir, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { join } from "node:path";
import { expect, test } from "vitest";
import { comparisonPage } from "../../src/folder/comparison-page.js";
import { livePage, versionOf } from "../../src/folder/live.js";
import { saveState } from "../../src/folder/state.js";
import { watchFolder } from "../../src/folder/watch.js";
import { makeTable } from "../../src/merge/table.js";
import { zeroMoments } from "../../src/train/adamw.js";
import { temporaryFolder, testRow } from "../helpers.js";

const folder = await temporaryFolder();

/** A training that stands at a step, as a run leaves it. */
async function training(out: string, step: number): Promise<void> {
  await mkdir(out, { recursive: true });
  const raw = makeTable(2, 2, (row, column) => row - column / 2);
  const labels = { layers: ["layers.0.q", "<i>head"], experts: ["rte", "cb"] };
  const identity = { tasks: ["rte", "cb"], steps: 100, gate: "tanh", seed: 3 };
  await saveState(out, identity, { raw, moments: { ...zeroMoments(4), step } }, labels);
  const lines = Array.from({ length: step + 1 }, (_, n) => ({
    step: n,
    ...(n > 0 && { loss: 2 / n, losses: [1 / n, 1 / n] }),
    ...(n % 5 === 0 && {
      validation: { loss: 1.5, accuracy: [0.5, 0.75] },
      coefficients: [0.1, 0.2, 0.3, 0.4],
    }),
  }));
  await writeFile(join(out, "training.jsonl"), lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
}
/** A method's scores on two tasks, alike. */
const rows = (method: string, value: number, n = 100) =>
  ["rte", "cb"].map((task) => testRow(method, task, value, { n }));
const leadOf = (html: string): string => /<p class="lead">([^<]*)/.exec(html)?.[1] ?? "";

test("a training that goes on: where it stands, its curves, its coefficients and the time that is left", async () => {
  const out = join(folder, "training");
  await training(out, 10);
  const html = await livePage(out, [
    { step: 4, at: 0 },
    { step: 10, at: 60_000 },
  ]);
  expect(leadOf(html)).toBe(
    "Step 10 of 100 of the training, loss 0.2000, about 15 min 00 s left. This page follows the run.",
  );
  for (const title of ["Loss along the training", "Accuracy along the training", "Coefficients"])
    expect(html).toContain(`<h2>${title}</h2>`);
  // tanh of 0, −½, 1 and ½, the last moment's.
  expect(html).toContain("[0,-0.4621,0.7616,0.4621]");
  expect(html).toContain("&lt;i&gt;head");
  expect(html).not.toContain("<i>head");
  expect(leadOf(await livePage(out, []))).not.toContain("left");
});

test("a name cannot end the page's scripts, nor begin one", async () => {
  const out = join(folder, "hostile");
  await mkdir(out);
  const bad = "</body></script><img src=x onerror=alert(1)>";
  const raw = makeTable(1, 1, () => 0.5);
  const identity = { tasks: [bad], steps: 100, gate: "tanh", note: bad };
  await saveState(out, identity, { raw, moments: zeroMoments(1) }, { layers: [bad], experts: [bad] });
  const line = { step: 0, loss: 1, validation: { loss: 1, accuracy: [1] }, coefficients: [0.5] };
  await writeFile(join(out, "training.jsonl"), `${JSON.stringify(line)}\n`);
  const html = await livePage(out, []);
  expect(html).not.toContain("<img src=x");
  expect(html.match(/<\/body>/g)).toHaveLength(1);
  // Vega, the figures, the map's, and what follows the run.
  expect(html.match(/<script>/g)).toHaveLength(4);
  expect(html.match(/<\/script>/g)).toHaveLength(4);
});

test("the steps of a training that goes block by block are those of all blocks", async () => {
  const out = join(folder, "blocks");
  await training(out, 10);
  const raw = makeTable(1, 1, () => 0.5);
  const labels = { layers: ["a"], experts: ["b"], steps: 300 };
  await saveState(out, { tasks: ["b"], steps: 50 }, { raw, moments: zeroMoments(1) }, labels);
  expect(leadOf(await livePage(out, []))).toMatch(/^Step 10 of 300 of the training/);
});

test("what was written since is another version; a folder of nothing says so", async () => {
  const out = join(folder, "version");
  await mkdir(out);
  const [empty, again] = [await versionOf(out), await versionOf(out)];
  expect(empty).toBe(again);
  expect(leadOf(await livePage(out, []))).toMatch(/^Nothing was written here yet/);
  await training(out, 1);
  expect(await versionOf(out)).not.toBe(empty);
});

test("a comparison: the methods that are done, the best of them, and the training in hand", async () => {
  const out = join(folder, "comparison");
  await mkdir(join(out, "methods"), { recursive: true });
  await writeFile(
    join(out, "compare.json"),
    JSON.stringify({ version: "1", methods: ["ties", "average", "supermerge"] }),
  );
  for (const [name, value] of [
    ["ties", 0.8],
    ["average", 0.6],
  ] as const)
    await writeFile(
      join(out, "methods", `${name}.json`),
      JSON.stringify({ identity: "x", rows: rows(name, value), seconds: { total: 1, merge: 1 }, values: {} }),
    );
  await training(join(out, "models", "supermerge"), 20);
  expect(leadOf(await livePage(out, []))).toBe(
    "2 of 3 methods are done. The best is ties with 80.0 % on average. Now: supermerge. Step 20 of 100 of the " +
      "training, loss 0.1000. This page follows the run.",
  );
});

test("the page of a finished comparison: the best and the next, searches over one number, what each saw", () => {
  const search = {
    ties: [
      { values: { lambda: 0.5 }, accuracy: 0.7, loss: 1 },
      { values: { lambda: 1 }, accuracy: 0.8, loss: 1 },
    ],
    lines: [{ values: { lambda: 1, lines: 2 }, accuracy: 0.9, loss: 1 }],
  };
  const times = [{ method: "ties", seen: "labels, to search", merge: 1, total: 20 }];
  const { lead, sections } = comparisonPage({
    rows: [...rows("individual", 0.95, 400), ...rows("average", 0.5, 400), ...rows("ties", 0.8, 400)],
    synthetic: true,
    settings: { tasks: ["rte", "cb"], valPerTask: 8 },
    inputs: [],
    outputs: [],
    search,
    times,
  });
  expect(lead).toBe(
    "ties is the best of 2 methods with 80.0 % on average; 30.0 points above average (50.0).",
  );
  expect(sections.map(({ title }) => title)).toEqual([
    "Methods side by side",
    "The searches",
    "Results",
    "Settings",
    "Inputs",
  ]);
  const points = JSON.stringify(sections[1]);
  expect(points).toContain('"series":"ties","x":1,"y":80');
  // A search over two numbers has no place on one axis.
  expect(points).not.toContain("lines");
  expect(JSON.stringify(sections[2])).toContain("labels, to search");
});

/** Asks a server as a browser would, under a name of one's choice. */
const ask = (url: string, { host, method = "GET" }: { host?: string; method?: string } = {}) =>
  new Promise<{ code: number; body: string }>((done, fail) => {
    const asked = request(url, { method, ...(host !== undefined && { headers: { host } }) }, (response) => {
      let body = "";
      response.on("data", (chunk: Buffer) => (body += chunk.toString()));
      response.on("end", () => done({ code: response.statusCode ?? 0, body }));
    });
    asked.on("error", fail).end();
  });

test("the page is served on this machine alone, and nothing else is", async () => {
  const out = join(folder, "served");
  await training(out, 5);
  const { url, close } = await watchFolder(out);
  expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/$/);
  const page = await ask(url);
  expect(page.code).toBe(200);
  expect(leadOf(page.body)).toContain("Step 5 of 100");
  expect(page.body).toContain(`const shown = ${JSON.stringify(await versionOf(out))}`);
  expect((await ask(`${url}version`)).body).toBe(await versionOf(out));
  expect((await ask(`${url}state.json`)).code).toBe(404);
  expect((await ask(`${url}..%2Fstate.json`)).code).toBe(404);
  expect((await ask(url, { method: "POST" })).code).toBe(405);
  // A page of another site that had its name point here would be given away nothing.
  expect(await ask(url, { host: "example.org" })).toEqual({ code: 403, body: "ask for 127.0.0.1" });
  const port = Number(new URL(url).port);
  await expect(watchFolder(out, port)).rejects.toThrow(/something else listens there/);
  await close();
  await expect(ask(url)).rejects.toThrow(/ECONNREFUSED|hang up/);
});
