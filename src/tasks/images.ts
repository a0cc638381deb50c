import { existsSync, readFileSync, type Dirent } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { UserError } from "../errors.js";
import { loadDecoder, pictureFile } from "./decode.js";
import { classOf, isObject } from "./columns.js";
import type { Example } from "./examples.js";
import { findFiles, type DataFiles, type FileSplit } from "./files.js";
import { readIdx } from "./idx.js";
import { readNpz } from "./npz.js";
import { parquetRows } from "./parquet.js";
import type { Picture } from "./pixels.js";
import type { ClassTask } from "./registry.js";

/** The examples of a split, and where they are from. */
export interface ReadSplit {
  readonly source: DataFiles;
  readonly examples: Example[];
}
/** Reads a split when it is asked for; undefined where there is none with labels. */
export type SplitReader = (split: FileSplit) => Promise<ReadSplit | undefined>;

/** A class's number. @throws UserError naming the classes that there are */
function labelOf(value: unknown, { id, labels }: ClassTask, where: string): number {
  const found = classOf(value, labels, labels.length);
  if (found !== undefined) return found;
  throw new UserError(
    `${where}: ${JSON.stringify(value)} is no class of ${id}; it takes ` +
      `${labels.slice(0, 12).join(", ")}${labels.length > 12 ? " …" : ""} or 0 to ` +
      `${labels.length - 1}`,
  );
}

/** Examples of two arrays: pictures [n, height, width] or [n, height, width, channels], and n labels. */
function ofArrays(
  x: { shape: readonly number[]; values: ArrayLike<unknown> },
  y: { values: ArrayLike<number | bigint> },
  task: ClassTask,
  where: string,
): Example[] {
  const [count = 0, height = 0, width = 0, channels = 1] = x.shape;
  const { values } = x;
  if (x.shape.length < 3 || x.shape.length > 4 || !(values instanceof Uint8Array))
    throw new UserError(
      `${where}: images must be bytes, [n, height, width] or [n, height, width, channels], ` +
        `they are [${x.shape.join(", ")}]`,
    );
  if (y.values.length !== count)
    throw new UserError(`${where}: there are ${count} images and ${y.values.length} labels`);
  const size = height * width * channels;
  return Array.from(y.values, (label, i): Example => ({
    kind: "image",
    texts: [],
    label: labelOf(Number(label), task, `${where}, label ${i}`),
    picture: () => ({ height, width, channels, pixels: values.subarray(i * size, (i + 1) * size) }),
  }));
}

/** `<task>.npz`: train_x, train_y, val_x, … */
function npzSplits(path: string, task: ClassTask): SplitReader {
  return async (split) => {
    const part = { train: "train", validation: "val", test: "test" }[split];
    const arrays = await readNpz(path, [`${part}_x`, `${part}_y`]);
    const [x, y] = [arrays.get(`${part}_x`), arrays.get(`${part}_y`)];
    if (!x || !y) return undefined;
    return { source: { name: path, files: [path] }, examples: ofArrays(x, y, task, `${path}: ${part}`) };
  };
}

const splitFolders: Record<FileSplit, readonly string[]> = {
  train: ["train"],
  validation: ["validation", "val", "valid", "dev"],
  test: ["test", "t10k"],
};

/** `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-…`, packed or not. */
function idxSplits(folder: string, names: readonly string[], task: ClassTask): SplitReader {
  const find = (split: FileSplit, what: string) =>
    names.find(
      (name) => splitFolders[split].some((part) => name.startsWith(`${part}-${what}`)) && idxFile.test(name),
    );
  return async (split) => {
    const [images, labels] = [find(split, "images"), find(split, "labels")];
    if (images === undefined || labels === undefined) return undefined;
    const name = join(folder, images);
    const files = [name, join(folder, labels)] as const;
    return {
      source: { name, files },
      examples: ofArrays(await readIdx(files[0]), await readIdx(files[1]), task, name),
    };
  };
}
const idxFile = /[-.]idx\d-ubyte(\.gz)?$/;

/** What lies in a folder, in order, without hidden files. @throws UserError where it holds a link */
async function inside(path: string): Promise<Dirent[]> {
  const entries = await readdir(path, { withFileTypes: true });
  const link = entries.find((entry) => entry.isSymbolicLink());
  if (link)
    throw new UserError(
      `${join(path, link.name)}: it is a link, and only what lies in the data folder itself is read`,
    );
  return entries.filter(({ name }) => !name.startsWith(".")).sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** The pictures in a folder. @throws UserError where one is of a kind that is not read */
async function pictureFiles(folder: string): Promise<string[]> {
  const files = (await inside(folder))
    .filter((entry) => entry.isFile())
    .map(({ name }) => join(folder, name));
  const odd = files.find((file) => /\.(webp|gif|bmp|tiff?|avif|heic)$/i.test(file));
  if (odd !== undefined) throw new UserError(`${odd}: pictures must be PNG or JPEG`);
  return files.filter((file) => pictureFile.test(file));
}

/** `<split>/<class>/<picture>`: a picture is read when it is needed, and not kept. */
function folderSplits(folder: string, task: ClassTask): SplitReader {
  return async (split) => {
    const path = splitFolders[split].map((name) => join(folder, name)).find(existsSync);
    if (path === undefined) return undefined;
    const decode = await loadDecoder();
    const entries = await inside(path);
    const classes = entries.filter((entry) => entry.isDirectory());
    // Pictures without classes: a published test set hides them.
    if (classes.length === 0 && entries.some(({ name }) => pictureFile.test(name))) return undefined;
    const examples: Example[] = [];
    const files: string[] = [];
    for (const { name } of classes) {
      const label = labelOf(name, task, join(path, name));
      for (const file of await pictureFiles(join(path, name))) {
        files.push(file);
        examples.push({ kind: "image", texts: [], label, picture: () => decode(readFileSync(file), file) });
      }
    }
    if (examples.length === 0)
      throw new UserError(`${path}: there are no pictures in it; they should be <class>/*.png or *.jpg`);
    return { source: { name: path, files }, examples };
  };
}

/** A picture as parquet holds it: bytes, or bytes beside a path (Hugging Face's form). */
function pictureBytes(value: unknown, where: string): Uint8Array {
  if (value instanceof Uint8Array) return value;
  if (isObject(value) && value["bytes"] instanceof Uint8Array) return value["bytes"];
  throw new UserError(`${where}: there is no picture in column image or img`);
}

/** Parquet files with a picture and a label a row. Held: the pictures as the files have them, not unpacked. */
function parquetSplits(found: Partial<Record<FileSplit, DataFiles>>, task: ClassTask): SplitReader {
  return async (split) => {
    const source = found[split];
    if (!source) return undefined;
    const decode = await loadDecoder();
    const examples: Example[] = [];
    let hidden = 0;
    for (const path of source.files) {
      for await (const { fields, where } of parquetRows(path)) {
        const label = fields["label"] ?? fields["labels"] ?? fields["fine_label"];
        // A published test set hides them.
        if (label === undefined || label === null || label === -1) {
          hidden++;
          continue;
        }
        const bytes = pictureBytes(fields["image"] ?? fields["img"], where);
        const picture = (): Picture => decode(bytes, where);
        examples.push({ kind: "image", texts: [], label: labelOf(label, task, where), picture });
      }
    }
    if (hidden && examples.length)
      throw new UserError(
        `${source.name}: ${hidden} of its pictures have no label, although others have one`,
      );
    if (examples.length === 0) return undefined;
    return { source, examples };
  };
}

/**
 * The splits of an image task: `<task>.npz` in the data folder, or a folder `<task>` with MNIST's idx
 * files, with parquet, or with `<split>/<class>/*.png` and `*.jpg`. A split is read when it is asked
 * for.
 * @throws UserError where there is none of them, or something in it does not fit the task
 */
export async function imageSplits(dataFolder: string, task: ClassTask): Promise<SplitReader> {
  const npz = [join(dataFolder, `${task.id}.npz`), join(dataFolder, task.id, `${task.id}.npz`)].find(
    existsSync,
  );
  if (npz !== undefined) return npzSplits(npz, task);
  const folder = join(dataFolder, task.id);
  if (!existsSync(folder))
    throw new UserError(
      `${dataFolder}: no data for task ${task.id}; it should be ${task.id}.npz there, or a ` +
        `folder ${task.id}. Name the folder that holds it with --data`,
    );
  const names = (await readdir(folder)).sort();
  if (names.some((name) => idxFile.test(name))) return idxSplits(folder, names, task);
  const parquet = await findFiles(folder, [".parquet"]);
  if (Object.keys(parquet).length) return parquetSplits(parquet, task);
  if (
    Object.values(splitFolders)
      .flat()
      .some((name) => names.includes(name))
  )
    return folderSplits(folder, task);
  throw new UserError(
    `${folder}: it holds neither ${basename(folder)}.npz, idx files, parquet nor folders ` +
      `train, val and test of pictures (${names.slice(0, 8).join(", ")})`,
  );
}
