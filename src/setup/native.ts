import { existsSync, readdirSync } from "node:fs";
import { copyFile, mkdir, rename, rm } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { addonPackage, nativeFolder, quietLibrary } from "../backend/engine.js";
import { writeText } from "../checkpoint/files.js";
import { z } from "zod";
import { at } from "../at.js";
import { UserError } from "../errors.js";
import { runCommand } from "./command.js";
import { fetchTensorFlow, findTensorFlow, nativePins, type TensorFlow } from "./tensorflow.js";

export interface NativeOptions {
  /** Fetch TensorFlow for an NVIDIA card. */
  readonly gpu: boolean;
  /** A folder that has TensorFlow; undefined lets pip fetch one. */
  readonly tensorflow: string | undefined;
  /** The Python whose pip fetches it. */
  readonly python: string;
  readonly note: (message: string) => void;
}

export interface NativeReport {
  readonly folder: string;
  readonly tensorflow: string;
  readonly device: string;
}

const isInside = (folder: string, path: string): boolean => !relative(folder, path).startsWith("..");

/** How a library names its own folder, and what its linker must be told, by platform. */
const linking =
  process.platform === "darwin"
    ? { origin: "@loader_path", options: ["-undefined", "dynamic_lookup"] }
    : { origin: "$ORIGIN", options: [] };

/** Compiles a library that Node loads. */
async function compile(staging: string, target: string, args: readonly string[]): Promise<void> {
  await mkdir(dirname(target), { recursive: true });
  const headers = join(staging, "node_modules", "node-api-headers", "include");
  await runCommand(
    process.env["CXX"] ?? "c++",
    [
      "-std=c++17",
      "-O2",
      "-shared",
      "-fPIC",
      "-DNAPI_VERSION=8",
      ...linking.options,
      "-I",
      headers,
      ...args,
      "-o",
      target,
    ],
    "the addon could not be compiled; a C++ compiler is needed (Debian: apt install g++; " +
      "macOS: xcode-select --install), or name one in CXX",
  );
}

/** Compiles tfjs-node's binding against TensorFlow's libraries; they are found where they lie, through the rpath. */
async function compileAddon(staging: string, tensorflow: TensorFlow): Promise<void> {
  const addon = addonPackage(staging);
  const target = join(addon, "lib", "napi-v8", "tfjs_binding.node");
  // Inside the cache the path is relative, because the folder is renamed when all is well.
  const rpath = isInside(staging, tensorflow.folder)
    ? `${linking.origin}/${relative(dirname(target), tensorflow.folder)}`
    : tensorflow.folder;
  await compile(staging, target, [
    ...[join(tensorflow.folder, "include"), addon].flatMap((folder) => ["-I", folder]),
    ...["tfjs_backend.cc", "tfjs_binding.cc"].map((file) => join(addon, "binding", file)),
    ...tensorflow.libraries,
    `-Wl,-rpath,${rpath}`,
  ]);
  await compile(staging, quietLibrary(staging), [join(nativePins, "quiet.cc")]);
}

/** What check-native.ts answers. */
const checkAnswer = z.object({ device: z.string() });

/** Runs a product and a gradient on a folder's engine, in a process of its own. @returns what it ran on */
async function checkEngine(folder: string): Promise<string> {
  const program = join(dirname(fileURLToPath(import.meta.url)), "check-native.js");
  const answer = await runCommand(
    process.execPath,
    [program, folder],
    "the engine was built but does not run",
  );
  return checkAnswer.parse(JSON.parse(at(answer.trim().split("\n"), -1))).device;
}

/**
 * Builds the TensorFlow engine in the user's cache: tfjs-node compiled against the libraries of a TensorFlow wheel,
 * checked by a product and a gradient, then put in place of any earlier one. What npm and pip fetch is pinned by
 * version and hash. Nothing is left behind when a part fails.
 * @throws UserError saying which part failed and what mends it
 */
export async function setupNative({
  gpu,
  tensorflow: given,
  python,
  note,
}: NativeOptions): Promise<NativeReport> {
  if (process.platform === "win32")
    throw new UserError(
      "setup native: there is no TensorFlow library to link on Windows; use WSL, or --backend webgpu",
    );
  const folder = nativeFolder();
  const staging = `${folder}.${process.pid}.partial`;
  const found = given === undefined ? undefined : findTensorFlow(given);
  await removePartial();
  try {
    await mkdir(staging, { recursive: true });
    for (const file of ["package.json", "package-lock.json"])
      await copyFile(join(nativePins, file), join(staging, file));
    note("tfjs-node: npm fetches it (300 MB on the disk)");
    await runCommand(
      "npm",
      ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
      "npm could not fetch tfjs-node",
      staging,
    );
    if (!found) note(`TensorFlow: pip fetches it (about ${gpu ? "4 GB" : "0.3 GB; 1.2 GB on the disk"})`);
    const tensorflow = found ?? (await fetchTensorFlow(join(staging, "python"), gpu, python));
    note(`TensorFlow ${tensorflow.version}: compiling the addon`);
    await compileAddon(staging, tensorflow);
    const where = isInside(staging, tensorflow.folder) ? "train-merge's cache" : tensorflow.folder;
    await writeText(join(staging, "tensorflow.txt"), `TensorFlow ${tensorflow.version} in ${where}\n`);
    note("checking a product and a gradient");
    const device = await checkEngine(staging);
    if (gpu && device !== "gpu")
      throw new UserError(
        "setup native --gpu: TensorFlow was built in but finds no card; see that nvidia-smi " +
          "lists one, or leave out --gpu",
      );
    await rm(folder, { recursive: true, force: true });
    await rename(staging, folder);
    return { folder, tensorflow: tensorflow.version, device };
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}

/** What a set-up that was killed left behind. */
async function removePartial(): Promise<boolean> {
  const folder = dirname(nativeFolder());
  if (!existsSync(folder)) return false;
  const left = readdirSync(folder).filter((name) => /^native\.\d+\.partial$/.test(name));
  for (const name of left) await rm(join(folder, name), { recursive: true, force: true });
  return left.length > 0;
}

/** Undoes {@link setupNative}. Returns whether there was anything. */
export async function removeNative(): Promise<boolean> {
  const there = existsSync(nativeFolder());
  await rm(nativeFolder(), { recursive: true, force: true });
  return (await removePartial()) || there;
}
