import { cp, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { packageFolder } from "../../src/package.js";
import { loadDecoder } from "../../src/tasks/decode.js";
import { pictureOf } from "../../src/tasks/examples.js";
import { readExamples } from "../../src/tasks/files.js";
import type { Picture } from "../../src/tasks/pixels.js";
import { loadTasks, type Task } from "../../src/tasks/registry.js";
import { loadTaskData } from "../../src/tasks/split.js";
import { golden, temporaryFolder } from "../helpers.js";

const folder = await temporaryFolder();
const files = join(packageFolder, "test", "golden", "pictures");
const pictures = golden<Record<string, { height: number; width: number; rgb: string }>>("pictures/pictures");
const decode = await loadDecoder();
const task = (labels: string[], id = "shapes"): Task => ({
  id,
  kind: "image",
  labels,
  max_new_tokens: 1,
  metrics: ["accuracy"],
  synthetic: false,
  what: "",
});
const shapes = task(["circle", "square", "star"]);

/** As colours, whatever the picture has. */
const colours = ({ channels, pixels, width, height }: Picture): Buffer =>
  Buffer.from(
    Array.from({ length: width * height * 3 }, (_, i) => pixels[channels === 1 ? Math.floor(i / 3) : i]!),
  );

async function put(path: string, content: string | Uint8Array): Promise<string> {
  const full = join(folder, path);
  await mkdir(join(full, ".."), { recursive: true });
  await writeFile(full, content);
  return full;
}

describe("files of pictures", () => {
  test.each(Object.entries(pictures))("%s has PIL's pixels", async (name, { height, width, rgb }) => {
    const made = decode(await readFile(join(files, name)), name);
    expect(made).toMatchObject({ height, width });
    expect(colours(made).equals(Buffer.from(rgb, "base64"))).toBe(true);
  });

  test("what is none is named", async () => {
    const half = await readFile(join(files, "half.jpg"));
    expect(() => decode(half.subarray(0, 40), "a.jpg")).toThrow("a.jpg: not a JPEG that can be read");
    const cmyk = await readFile(join(files, "cmyk.jpg"));
    expect(() => decode(cmyk, "c.jpg")).toThrow(/c\.jpg: not a JPEG that can be read .*CMYK/);
    const png = await readFile(join(files, "colour.png"));
    expect(() => decode(png.subarray(0, 100), "a.png")).toThrow("a.png: not a PNG that can be read");
    expect(() => decode(Buffer.from("GIF89a"), "a.gif")).toThrow("a.gif: not a PNG or JPEG file");
    const huge = Buffer.from(png);
    huge.writeUInt32BE(0x7fffffff, 16);
    expect(() => decode(huge, "b.png")).toThrow(/b\.png: its header says that it has more than/);
    // After all that, it still works.
    expect(decode(half, "half.jpg").width).toBe(18);
  });
});

describe("sets of pictures", () => {
  const rgb = (name: string) => Buffer.from(pictures[name]!.rgb, "base64");

  test("folders, a class each", async () => {
    for (const [path, name] of [
      ["folders/shapes/val/star/b.png", "colour.png"],
      ["folders/shapes/val/star/a.JPG", "half.jpg"],
      ["folders/shapes/val/circle/x.png", "grey.png"],
      ["folders/shapes/test/square/y.jpeg", "full.jpg"],
    ] as const)
      await put(path, await readFile(join(files, name)));
    await put("folders/shapes/val/circle/Thumbs.db", "x");
    const {
      validation,
      test: tested,
      sources,
    } = await loadTaskData(join(folder, "folders"), shapes, { valPerTask: 3, seed: 0 });
    expect(validation.map(({ label }) => label).sort((a, b) => a - b)).toEqual([0, 2, 2]);
    expect(tested.map(({ label }) => label)).toEqual([1]);
    expect(colours(pictureOf(tested[0]!)).equals(rgb("full.jpg"))).toBe(true);
    expect(sources.validation).toEqual({
      name: join(folder, "folders/shapes/val"),
      files: ["circle/x.png", "star/a.JPG", "star/b.png"].map((file) =>
        join(folder, "folders/shapes/val", file),
      ),
    });
    await put("folders/numbered/test/00001/a.png", "not read before it is needed");
    await put("folders/numbered/train/00000/a.png", "");
    const { test: numbered } = await loadTaskData(join(folder, "folders"), task(["0", "1"], "numbered"), {
      valPerTask: 1,
      seed: 0,
    });
    expect(numbered[0]!.label).toBe(1);
    expect(() => pictureOf(numbered[0]!)).toThrow(/00001\/a\.png: not a PNG or JPEG file/);
  });

  test("folders that do not fit", async () => {
    await put("wrong/shapes/test/cube/a.png", "");
    await expect(loadTaskData(join(folder, "wrong"), shapes, { valPerTask: 1, seed: 0 })).rejects.toThrow(
      /test\/cube: "cube" is no class of shapes; it takes circle, square, star or 0 to 2/,
    );
    await put("webp/shapes/test/star/a.webp", "");
    await expect(loadTaskData(join(folder, "webp"), shapes, { valPerTask: 1, seed: 0 })).rejects.toThrow(
      /a\.webp: pictures must be PNG or JPEG/,
    );
    await mkdir(join(folder, "link", "shapes", "test"), { recursive: true });
    await symlink(files, join(folder, "link", "shapes", "test", "star"));
    await expect(loadTaskData(join(folder, "link"), shapes, { valPerTask: 1, seed: 0 })).rejects.toThrow(
      /test\/star: it is a link/,
    );
    await mkdir(join(folder, "empty", "shapes", "test", "star"), { recursive: true });
    await expect(loadTaskData(join(folder, "empty"), shapes, { valPerTask: 1, seed: 0 })).rejects.toThrow(
      /there are no pictures in it/,
    );
    await put("other/shapes/readme.txt", "");
    await expect(loadTaskData(join(folder, "other"), shapes, { valPerTask: 1, seed: 0 })).rejects.toThrow(
      /it holds neither shapes\.npz, idx files, parquet nor folders/,
    );
    await expect(loadTaskData(join(folder, "nothing"), shapes, { valPerTask: 1, seed: 0 })).rejects.toThrow(
      /no data for task shapes/,
    );
  });

  test("a published test set, without labels, is none", async () => {
    for (const [path, name] of [
      ["flat/shapes/train/star/a.png", "colour.png"],
      ["flat/shapes/val/star/b.png", "colour.png"],
      ["flat/shapes/test/c.png", "grey.png"],
    ] as const)
      await put(path, await readFile(join(files, name)));
    const { sources } = await loadTaskData(join(folder, "flat"), shapes, { valPerTask: 1, seed: 0 });
    expect(sources.test.name).toBe(join(folder, "flat/shapes/val"));
  });

  test("MNIST's idx files, packed or not", async () => {
    const idx = (shape: number[], values: number[]) =>
      Buffer.from([0, 0, 8, shape.length, ...shape.flatMap((n) => [0, 0, n >> 8, n & 255]), ...values]);
    const values = Array.from({ length: 24 }, (_, i) => 10 * i);
    await put("idx/shapes/train-images-idx3-ubyte", idx([2, 3, 4], values));
    await put("idx/shapes/train-labels-idx1-ubyte", idx([2], [2, 1]));
    await put("idx/shapes/t10k-images-idx3-ubyte.gz", gzipSync(idx([1, 3, 4], values.slice(12))));
    await put("idx/shapes/t10k-labels-idx1-ubyte.gz", gzipSync(idx([1], [1])));
    const { validation, test: tested } = await loadTaskData(join(folder, "idx"), shapes, {
      valPerTask: 2,
      seed: 0,
    });
    expect(validation.map(({ label }) => label).sort((a, b) => a - b)).toEqual([1, 2]);
    expect(pictureOf(tested[0]!)).toEqual({
      height: 3,
      width: 4,
      channels: 1,
      pixels: Uint8Array.from(values.slice(12)),
    });
    await put("idx/shapes/t10k-images-idx3-ubyte.gz", gzipSync(idx([9, 3, 4], values.slice(12))));
    await expect(loadTaskData(join(folder, "idx"), shapes, { valPerTask: 2, seed: 0 })).rejects.toThrow(
      /it holds 12 bytes, its header says 108/,
    );
    await put("idx/shapes/t10k-images-idx3-ubyte.gz", "no gzip");
    await expect(loadTaskData(join(folder, "idx"), shapes, { valPerTask: 2, seed: 0 })).rejects.toThrow(
      /cannot be unpacked/,
    );
  });

  test("parquet, in shards", async () => {
    const shard = join(files, "pictures.parquet");
    await mkdir(join(folder, "parquet", "shapes"), { recursive: true });
    await cp(shard, join(folder, "parquet", "shapes", "train-00000-of-00002.parquet"));
    await cp(shard, join(folder, "parquet", "shapes", "test-00000-of-00001.parquet"));
    await expect(loadTaskData(join(folder, "parquet"), shapes, { valPerTask: 2, seed: 0 })).rejects.toThrow(
      /there are 1 of its 2 shards/,
    );
    await cp(shard, join(folder, "parquet", "shapes", "train-00001-of-00002.parquet"));
    const {
      validation,
      test: tested,
      sources,
    } = await loadTaskData(join(folder, "parquet"), shapes, { valPerTask: 100, seed: 0 });
    expect(validation.map(({ label }) => label).sort((a, b) => a - b)).toEqual([0, 0, 1, 1, 2, 2]);
    expect(sources.validation.files).toHaveLength(2);
    expect(tested.map(({ label }) => label)).toEqual([2, 0, 1]);
    for (const [i, name] of ["colour.png", "half.jpg", "grey.png"].entries())
      expect(colours(pictureOf(tested[i]!)).equals(rgb(name))).toBe(true);
  });
});

describe("texts in parquet", () => {
  test("packed by zstd, in groups of rows; by gzip, with lists", async () => {
    const registry = await loadTasks();
    const cb = await readExamples(join(files, "texts.parquet"), registry.get("cb")!);
    expect(cb.map(({ texts, label }) => [...texts[0]!, label])).toEqual([
      ["A.", "D.", 0],
      ["B, ü.", "E.", 1],
      ["C.", "F.", 2],
    ]);
    const ropes = await readExamples(join(files, "answers.parquet"), registry.get("ropes")!);
    expect(ropes.map((one) => one.kind === "generate" && [one.answers, one.fields["background"]])).toEqual([
      [["me", "I"], "b"],
      [["that"], "c"],
    ]);
  });

  test("a file that is none is named", async () => {
    const path = await put("broken.parquet", "PAR1 not really PAR1");
    await expect(readExamples(path, (await loadTasks()).get("cb")!)).rejects.toThrow(
      /broken\.parquet: not a parquet file that can be read/,
    );
  });
});
