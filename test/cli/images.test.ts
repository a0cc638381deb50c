import { cp, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { zipSync } from "fflate";
import { beforeAll, describe, expect, test } from "vitest";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { writeSafetensors, type TensorSource } from "../../src/checkpoint/write.js";
import { clip, clipText } from "../../src/models/clip.js";
import type { Shapes } from "../../src/models/types.js";
import { vit } from "../../src/models/vit.js";
import { packageFolder } from "../../src/package.js";
import { elements, fromFloat32, toFloat32 } from "../../src/tensor/dtype.js";
import { temporaryFolder } from "../helpers.js";
import { canRunCards, cardTitle, headIsThere, runCard } from "./card.js";
import { cliIn, json } from "./cli.js";

const folder = await temporaryFolder();
const cli = cliIn(folder);
const mini = join(packageFolder, "checkpoints", "mini", "base");

const draw = (i: number, s: number) => Math.sin(12.9898 * (i + 1) + 78.233 * s);

/** Random weights, or those a little off: of a model, with tensors beside it. */
async function model(
  path: string,
  config: object,
  shapes: Iterable<readonly [string, readonly number[]]>,
  seed: number,
): Promise<void> {
  const sources = [...shapes].map(([name, shape], t): TensorSource => ({
    name,
    dtype: "F32",
    shape,
    bytes: async () =>
      fromFloat32(
        Float32Array.from(
          { length: elements(shape) },
          (_, i) =>
            (/norm\w*\.weight$/.test(name) ? 1 : 0) +
            0.3 * draw(i, t) +
            0.1 * (seed && draw(i, t + 31 * seed)),
        ),
        "F32",
      ),
  }));
  await mkdir(path, { recursive: true });
  await writeSafetensors(join(path, "model.safetensors"), sources);
  await writeFile(join(path, "config.json"), JSON.stringify(config));
}

/** An array of bytes as NumPy writes it. */
function npy(values: Uint8Array, shape: readonly number[]): Uint8Array {
  const header =
    (
      "{'descr': '|u1', 'fortran_order': False, 'shape': " +
      `(${shape.join(", ")}${shape.length === 1 ? "," : ""}), }`
    ).padEnd(117) + "\n";
  return Uint8Array.from([
    0x93,
    ...Buffer.from("NUMPY"),
    1,
    0,
    header.length & 255,
    header.length >> 8,
    ...Buffer.from(header),
    ...values,
  ]);
}

async function pictures(task: string, classes: number, channels: number): Promise<void> {
  const files: Record<string, Uint8Array> = {};
  for (const [split, count] of [
    ["val", 12],
    ["test", 9],
  ] as const) {
    files[`${split}_x.npy`] = npy(
      Uint8Array.from({ length: count * 100 * channels }, (_, i) => 128 + 127 * draw(i, count)),
      channels === 1 ? [count, 10, 10] : [count, 10, 10, channels],
    );
    files[`${split}_y.npy`] = npy(
      Uint8Array.from({ length: count }, (_, i) => i % classes),
      [count],
    );
  }
  await writeFile(join(folder, "data", `${task}.npz`), zipSync(files));
}

const small = {
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  image_size: 8,
  patch_size: 4,
};
const given = [
  "--tasks",
  "shapes,grey",
  "--data",
  "data",
  "--backend",
  "wasm",
  "--steps",
  "3",
  "--val-per-task",
  "8",
];

describe("images", () => {
  beforeAll(async () => {
    await mkdir(join(folder, "data"));
    await writeFile(
      join(folder, "data", "tasks.json"),
      JSON.stringify({
        shapes: {
          kind: "image",
          labels: ["circle", "square", "star"],
          prompts: ["a drawing of a {}", "one {}"],
        },
        grey: { kind: "image", labels: ["old", "new"] },
        numbered: { kind: "image", labels: 3 },
      }),
    );
    await pictures("shapes", 3, 3);
    await pictures("grey", 2, 1);
    await pictures("numbered", 3, 3);
  });

  test("a ViT's experts are merged, grey pictures and colours, resized as they must be", async () => {
    const config = { model_type: "vit", ...small };
    const shapes = vit.build(config).parameters;
    await model(join(folder, "vit", "base"), config, shapes, 0);
    for (const [i, [task, classes]] of [
      ["shapes", 3],
      ["grey", 2],
    ].entries())
      await model(
        join(folder, "vit", "experts", String(task)),
        config,
        [...shapes, ["classifier.weight", [Number(classes), 16]], ["classifier.bias", [Number(classes)]]],
        i + 1,
      );
    expect(await cli(...given, "--family", "vit", "--out", "seen")).toMatchObject({ code: 0 });
    const { rows } = await json<{ rows: { method: string; task: string; value: number; n: number }[] }>(
      join(folder, "seen", "results.json"),
    );
    expect(rows.every(({ n }) => n === 9)).toBe(true);
    const again = JSON.parse(
      (await cli("evaluate", "seen", "--data", "data", "--backend", "wasm", "--json")).stdout,
    ) as { rows: { task: string; value: number }[] };
    for (const { task, value } of again.rows)
      expect(value).toBe(rows.find((row) => row.method === "supermerge" && row.task === task)!.value);
  });

  test("CLIP's towers alone get their heads from the base's text tower", async () => {
    const vocab = (await json<{ model: { vocab: Record<string, number> } }>(join(mini, "tokenizer.json")))
      .model.vocab;
    const { image_size: _i, patch_size: _p, ...tower } = small;
    const config = {
      model_type: "clip",
      projection_dim: 8,
      vision_config: { ...small, projection_dim: 8 },
      text_config: {
        ...tower,
        vocab_size: Object.keys(vocab).length,
        max_position_embeddings: 24,
        eos_token_id: vocab["[SEP]"],
      },
    };
    const [seen, read]: [Shapes, Shapes] = [clip.build(config).parameters, clipText(config).parameters];
    await model(join(folder, "clip", "base"), config, [...seen, ...read, ["logit_scale", []]], 0);
    await cp(join(mini, "tokenizer.json"), join(folder, "clip", "base", "tokenizer.json"));
    for (const [i, task] of ["shapes", "grey"].entries())
      await model(
        join(folder, "clip", "experts", task),
        { model_type: "clip_vision_model", ...small },
        [...seen].filter(([name]) => name !== "visual_projection.weight"),
        i + 1,
      );
    const out = await cli(...given, "--family", "clip", "--out", "clipped");
    if (out.code) console.log(out.stderr);
    expect(out).toMatchObject({ code: 0 });
    const file = await openSafetensors(join(folder, "clipped", "heads", "shapes", "head.safetensors"));
    const head = await file.read("classification_head.weight");
    await file.close();
    expect(head.shape).toEqual([3, 8]);
    // Every class's row has the length that logit_scale says: e to the (random) number in the base.
    const lengths = [0, 1, 2].map((c) => Math.hypot(...toFloat32(head).subarray(8 * c, 8 * c + 8)));
    for (const length of lengths) expect(length).toBeCloseTo(lengths[0]!, 4);
    await cp(join(folder, "clip", "experts", "shapes"), join(folder, "clip", "experts", "numbered"), {
      recursive: true,
    });
    expect(
      (await cli(...given, "--tasks", "shapes,numbered", "--family", "clip", "--out", "none")).stderr,
    ).toMatch(/numbered: a head is made from the names of its classes, and it has numbers alone/);
  });

  test.skipIf(!canRunCards)(cardTitle("a merged ViT"), async () => {
    expect(await runCard(join(folder, "seen"), headIsThere)).toBe("right");
  });

  test.skipIf(!canRunCards)(cardTitle("merged CLIP towers"), async () => {
    const check =
      "import torch\nx = model(pixel_values=torch.rand(1, 3, 8, 8)).image_embeds\nprint((head @ x.T).shape[0])";
    expect(await runCard(join(folder, "clipped"), check)).toBe("3");
  });

  test("a damaged archive is said to be one", async () => {
    await mkdir(join(folder, "bad"));
    await writeFile(join(folder, "bad", "mnist.npz"), "no archive");
    expect(
      (
        await cli(
          ...given,
          "--tasks",
          "mnist",
          "--family",
          "vit",
          "--experts",
          `mnist=${join(folder, "vit", "experts", "shapes")}`,
          "--data",
          "bad",
          "--out",
          "none",
        )
      ).stderr,
    ).toMatch(/train-merge: /);
    await writeFile(
      join(folder, "bad", "grey.npz"),
      zipSync({
        "val_x.npy": npy(new Uint8Array(50), [1, 10, 10]).subarray(0, 120),
        "val_y.npy": npy(new Uint8Array(1), [1]),
      }),
    );
    await writeFile(
      join(folder, "bad", "tasks.json"),
      JSON.stringify({ grey: { kind: "image", labels: 2 } }),
    );
    expect(
      (await cli(...given, "--tasks", "grey", "--family", "vit", "--data", "bad", "--out", "none")).stderr,
    ).toMatch(
      /grey\.npz: val_x\.npy: (not a NumPy array|its header is longer than|it holds \d+ bytes, its shape says 100)/,
    );
  });
});
