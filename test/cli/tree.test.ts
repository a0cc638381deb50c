import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { openCheckpoint } from "../../src/checkpoint/folder.js";
import { packageFolder } from "../../src/package.js";
import type { ResultRow } from "../../src/report/rows.js";
import { toFloat32 } from "../../src/tensor/dtype.js";
import { relativeError, temporaryFolder } from "../helpers.js";
import { cliIn, contents, json, main } from "./cli.js";

const folder = await temporaryFolder();
const shipped = join(packageFolder, "data", "mini");
const data = join(folder, "data");
// Few test examples are enough to see a tree grow.
for (const task of ["cb", "copa", "trec6"]) {
  await mkdir(join(data, task), { recursive: true });
  for (const file of ["validation.jsonl", "test.jsonl"])
    await writeFile(
      join(data, task, file),
      `${(await readFile(join(shipped, task, file), "utf8")).split("\n").slice(0, 48).join("\n")}\n`,
    );
}
await writeFile(join(data, "tasks.json"), await readFile(join(shipped, "tasks.json"), "utf8"));

const cli = cliIn(folder);
const quick = [
  "--data",
  data,
  "--steps",
  "6",
  "--eval-every",
  "3",
  "--batch-size",
  "8",
  "--backend",
  "wasm",
  "--residency",
  "host",
  "--blocks",
  "off",
];
const tree = (...args: string[]) => ["tree", "--tasks", "cb,copa,trec6", ...quick, ...args];

interface TreeFile {
  nodes: { id: string; children: string[]; identity: string }[];
}

const timed = ["run.json", "report.html", "plan.json", "tree.svg", "tree.png"];

async function weights(place: string): Promise<Map<string, Float32Array>> {
  const checkpoint = await openCheckpoint(place);
  const out = new Map<string, Float32Array>();
  for (const name of checkpoint.names) out.set(name, toFloat32(await checkpoint.read(name)));
  await checkpoint.close();
  return out;
}

const whole = join(folder, "whole");
const run = await cli(...tree("--keep-nodes", "--dtype", "F32", "--out", whole, "--json"));

describe("a tree of merges", () => {
  test("writes the plan first, a folder a node, pictures, and the merged model", async () => {
    expect(run).toMatchObject({ code: 0 });
    const { nodes } = await json<TreeFile>(join(whole, "tree.json"));
    expect(nodes).toHaveLength(2);
    expect(nodes[1]!.id).toBe("cb+copa+trec6");
    expect(run.stderr).toMatch(/node +level +merges/);
    for (const file of [
      "model.safetensors",
      "README.md",
      "tree.png",
      "similarity.png",
      "similarity-layers.png",
      "coefficients.csv",
      "heads",
      "results.json",
    ])
      expect(existsSync(join(whole, file)), file).toBe(true);
    const { rows, synthetic } = JSON.parse(run.stdout) as { rows: ResultRow[]; synthetic: boolean };
    expect(synthetic).toBe(true);
    expect([...new Set(rows.map(({ method }) => method))]).toEqual([
      "individual",
      "pretrained",
      "average",
      "task-arithmetic",
      "hierarchical",
    ]);
  });

  test("the flattened table gives the weights that the nodes give one after the other", async () => {
    const [flat, byNodes] = [
      await weights(whole),
      await weights(join(whole, "nodes", "cb+copa+trec6", "model")),
    ];
    expect([...flat.keys()]).toEqual([...byNodes.keys()]);
    for (const [name, values] of flat)
      expect(relativeError(values, byNodes.get(name)!), name).toBeLessThan(2e-6);
  });

  test(
    "a finished tree is not run again; a node that is gone is, with the same bytes; other " +
      "settings run all",
    async () => {
      const before = await contents(whole, timed);
      const again = await cli(...tree("--keep-nodes", "--dtype", "F32", "--out", whole));
      expect(again.stderr).toMatch(/is finished already/);
      const {
        nodes: [first],
      } = await json<TreeFile>(join(whole, "tree.json"));
      await rm(join(whole, "nodes", first!.id), { recursive: true });
      // What is damaged is made again; a file that a kill left is gone.
      await writeFile(join(whole, "plan.json"), '{"nodes": 3}');
      await writeFile(join(whole, "similarity.json"), "null");
      await writeFile(join(whole, "heads", "cb", "head.safetensors.0123abcd.tmp"), "half");
      await rm(join(whole, "results.json"));
      const mended = await cli(...tree("--keep-nodes", "--dtype", "F32", "--out", whole));
      expect(mended.stderr).toMatch(/cb\+copa\+trec6: done before/);
      expect(await contents(whole, timed)).toEqual(before);
      const { nodes } = await json<TreeFile>(join(whole, "tree.json"));
      const other = join(folder, "other");
      expect((await cli(...tree("--keep-nodes", "--dtype", "F32", "--seed", "1", "--out", other))).code).toBe(
        0,
      );
      const changed = (await json<TreeFile>(join(other, "tree.json"))).nodes;
      for (const [i, { identity }] of changed.entries()) expect(identity).not.toBe(nodes[i]!.identity);
    },
    120_000,
  );

  test("killed on the way and run again: the same bytes", async () => {
    const out = join(folder, "killed");
    const args = tree("--keep-nodes", "--dtype", "F32", "--out", out);
    const child = spawn(process.execPath, [main, ...args], { cwd: folder, stdio: "ignore" });
    const ended = new Promise((resolve) => child.on("exit", resolve));
    // In the middle of the first node's training, if the machine is not too slow to tell.
    for (
      let i = 0;
      i < 600 &&
      !(
        existsSync(join(out, "nodes")) &&
        (await readdir(join(out, "nodes"), { recursive: true })).some((file) => file.endsWith("state.json"))
      );
      i++
    )
      await sleep(50);
    child.kill("SIGKILL");
    await ended;
    expect(existsSync(join(out, "results.json"))).toBe(false);
    expect(await cli(...args)).toMatchObject({ code: 0 });
    const [found, expected] = [await contents(out, timed), await contents(whole, timed)];
    expect([...found.keys()]).toEqual([...expected.keys()]);
    for (const [file, bytes] of found) expect(bytes === expected.get(file), file).toBe(true);
  }, 120_000);

  test("nodes of a method that is not linear are written out, and flattening says why it cannot", async () => {
    const out = join(folder, "ties");
    const merged = await cli(...tree("--node-method", "ties", "--out", out, "--json"));
    expect(merged).toMatchObject({ code: 0 });
    expect(merged.stderr).toMatch(/ties gives no table of coefficients: the result is the root/);
    expect(await weights(out)).toEqual(await weights(join(out, "nodes", "cb+copa+trec6", "model")));
    expect(JSON.parse(merged.stdout).rows.map(({ method }: ResultRow) => method)).toContain(
      "hierarchical-ties",
    );
    const polished = await cli(...tree("--node-method", "ties", "--polish", "3", "--out", out));
    expect(polished.code).toBe(1);
    expect(polished.stderr).toMatch(/cannot be flattened.*what ties makes is not one table/);
  }, 120_000);

  test("--polish trains on from the flattened table; --by takes a file, and refuses a wrong one", async () => {
    const groups = join(folder, "groups.yaml");
    const out = join(folder, "polished");
    await writeFile(groups, "[[trec6, copa], sst2]\n");
    const wrong = await cli(...tree("--by", groups, "--out", out));
    expect(wrong.code).toBe(1);
    expect(wrong.stderr.trim()).toBe(
      `train-merge: ${groups}: "sst2" is not among the tasks (cb, copa, trec6); write groups ` +
        "as nested lists, such as [[rte, cb], copa]",
    );
    // The folder that it began is its own: the next try may use it.
    await writeFile(groups, "[[trec6, copa], cb]\n");
    expect(
      await cli(
        ...tree("--by", groups, "--polish", "2", "--jobs", "2", "--task-weights", "1,2,3", "--out", out),
      ),
    ).toMatchObject({ code: 0 });
    expect((await json<TreeFile>(join(out, "tree.json"))).nodes.map(({ children }) => children)).toEqual([
      ["trec6", "copa"],
      ["copa+trec6", "cb"],
    ]);
    // A node has the weights of its own tasks.
    expect(
      (await json<{ settings: { taskWeights: number[] } }>(join(out, "nodes", "copa+trec6", "node.json")))
        .settings.taskWeights,
    ).toEqual([2, 3]);
    expect(
      (await json<{ rows: ResultRow[] }>(join(out, "results.json"))).rows.map(({ method }) => method),
    ).toContain("hierarchical+polish");
    for (const [args, message, expected = 2] of [
      [
        ["--by", "nowhere.yaml"],
        "--by nowhere.yaml: it is neither similarity nor order, and there is no such file",
      ],
      [["--by", groups, "--fan-in", "2"], `--fan-in is not for groups that a file names (${groups})`],
      [
        ["--pack", "sparse"],
        "--pack sparse is not for trees: each node would trim the merges below it again, and the tree " +
          "would no longer be one table of coefficients; use f32, bf16 or int8",
        1,
      ],
      [["--fan-in", "1"], "--fan-in 1: it must be a whole number from 2 on"],
      [["--pairwise", "--fan-in", "3"], "--pairwise means --fan-in 2; give one of them"],
    ] as const) {
      const { code, stderr } = await cli(...tree(...args, "--out", join(folder, "never")));
      expect({ code, last: stderr.trim().split("\n").at(-1) }).toEqual({
        code: expected,
        last: `train-merge: ${message}`,
      });
    }
  }, 120_000);

  test("a node by itself: a child that is not done is named", async () => {
    const { nodes } = await json<TreeFile>(join(whole, "tree.json"));
    const lonely = join(folder, "lonely", "nodes", nodes[1]!.id);
    await mkdir(lonely, { recursive: true });
    await writeFile(
      join(lonely, "node.json"),
      await readFile(join(whole, "nodes", nodes[1]!.id, "node.json")),
    );
    const { code, stderr } = await cli("node", join(lonely, "node.json"));
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`its child ${nodes[0]!.id.replace("+", "\\+")} is not done`));
  });
});

describe("add", () => {
  test("a new expert joins a finished merge, which counts as one model", async () => {
    const out = join(folder, "added");
    const two = join(folder, "two");
    expect(await cli("train", "--tasks", "cb,copa", ...quick, "--out", two)).toMatchObject({ code: 0 });
    const added = await cli(
      "add",
      join(packageFolder, "checkpoints", "mini", "experts", "trec6"),
      "--to",
      two,
      ...quick,
      "--out",
      out,
      "--json",
    );
    expect(added).toMatchObject({ code: 0 });
    expect((await json<{ tasks: string[] }>(join(out, "coefficients.json"))).tasks).toEqual([
      "cb+copa",
      "trec6",
    ]);
    expect(await readdir(join(out, "heads"))).toEqual(["cb", "copa", "trec6"]);
    const value = (method: string, task: string) =>
      (JSON.parse(added.stdout) as { rows: ResultRow[] }).rows.find(
        (row) => row.method === method && row.task === task,
      )!.value;
    // As one model, the merge is as good on its tasks as it was.
    const { rows } = await json<{ rows: ResultRow[] }>(join(two, "results.json"));
    expect(value("individual", "cb")).toBeCloseTo(
      rows.find((row) => row.method === "supermerge" && row.task === "cb")!.value,
      6,
    );
    const again = await cli(
      "add",
      join(packageFolder, "checkpoints", "mini", "experts", "cb"),
      "--to",
      two,
      ...quick,
      "--out",
      join(folder, "never"),
    );
    expect(again).toMatchObject({ code: 1 });
    expect(again.stderr).toMatch(/has cb already/);
    // Another base: the same shapes, other numbers.
    const base = join(folder, "base");
    await cp(join(packageFolder, "checkpoints", "mini", "base"), base, { recursive: true });
    const bytes = await readFile(join(base, "model.safetensors"));
    bytes[bytes.length - 2]! ^= 1;
    await writeFile(join(base, "model.safetensors"), bytes);
    const other = await cli(
      "add",
      join(packageFolder, "checkpoints", "mini", "experts", "trec6"),
      "--to",
      two,
      "--base",
      base,
      ...quick,
      "--out",
      join(folder, "never"),
    );
    expect(other.stderr.trim()).toBe(
      `train-merge: ${base}: ${two} was made from another base (its model.safetensors ` +
        "differs); name that one with --base or --family",
    );
    const none = await cli("add", "somewhere", "--to", folder, ...quick);
    expect(none.stderr).toMatch(/not a finished merge/);
  }, 120_000);
});

describe("explain", () => {
  test("says what every placement takes, from headers alone, and refuses what cannot fit", async () => {
    const shape = join(packageFolder, "experiments", "t0-3b");
    const { code, stdout } = await cli(
      "explain",
      "--shape",
      shape,
      "--count",
      "11",
      "--batch-size",
      "2",
      "--max-length",
      "64",
      "--memory-budget",
      "4GB",
      "--backend",
      "wasm",
      "--json",
    );
    expect(code).toBe(0);
    const plan = JSON.parse(stdout) as {
      chosen: { residency: string; blockwise: boolean; device: number };
      predictions: unknown[];
      equation6: { flat: number };
    };
    expect(plan.chosen).toMatchObject({ blockwise: true });
    expect(plan.chosen.device).toBeLessThan(4e9);
    expect(plan.predictions).toHaveLength(6);
    expect(plan.equation6.flat).toBeGreaterThan(1.3e11);
    const text = await cli("explain", "--tasks", "rte,cb", "--backend", "wasm");
    expect(text.stdout).toMatch(/equation 6/);
    const small = await cli(
      "explain",
      "--shape",
      shape,
      "--count",
      "11",
      "--memory-budget",
      "200MB",
      "--backend",
      "wasm",
    );
    expect(small.code).toBe(1);
    expect(small.stderr).toMatch(/no placement fits 0\.20 GB of device memory \(--memory-budget\)/);
  });
});
