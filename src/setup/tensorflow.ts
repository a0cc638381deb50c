import { existsSync, readdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { UserError } from "../errors.js";
import { run } from "./run.js";

/** The TensorFlow that is fetched where the user names none: the newest that was seen to work. */
export const tensorflowVersion = "2.21.0";

const libraryNames =
  process.platform === "darwin"
    ? ["libtensorflow_cc.2.dylib", "libtensorflow_framework.2.dylib"]
    : ["libtensorflow_cc.so.2", "libtensorflow_framework.so.2"];

/** A TensorFlow on the disk: where its headers are, the two libraries to link, its version. */
export interface TensorFlow {
  readonly folder: string;
  readonly libraries: readonly string[];
  readonly version: string;
}

/** The version a wheel's metadata beside the folder gives (2.21's headers no longer say). */
function versionOf(folder: string): string {
  const metadata = readdirSync(dirname(folder))
    .map((name) => /^tensorflow(?:_cpu|_intel|_gpu)?-([\w.+]+)\.dist-info$/.exec(name)?.[1])
    .find(Boolean);
  return metadata ?? "of unknown version";
}

/** `folder` itself, or where Python keeps packages below it: a virtual environment, site-packages, `pip --target`. */
function candidates(folder: string): string[] {
  const places = [folder, join(folder, "tensorflow")];
  for (const lib of [join(folder, "lib"), join(folder, "lib64")]) {
    if (!existsSync(lib)) continue;
    for (const python of readdirSync(lib)) places.push(join(lib, python, "site-packages", "tensorflow"));
  }
  return places;
}

/** Finds TensorFlow's libraries and headers. @throws UserError naming what was looked for. */
export function findTensorFlow(given: string): TensorFlow {
  const folder = candidates(resolve(given)).find(
    (place) =>
      libraryNames.every((name) => existsSync(join(place, name))) && existsSync(join(place, "include")),
  );
  if (folder === undefined) {
    throw new UserError(
      `--tensorflow ${given}: there is no ${libraryNames.join(" with ")} and include/ in it; ` +
        "name a virtual environment or a site-packages folder that has TensorFlow",
    );
  }
  return { folder, libraries: libraryNames.map((name) => join(folder, name)), version: versionOf(folder) };
}

/**
 * Fetches TensorFlow with pip into `folder`. On Linux the wheel is named by its tags, so that any
 * Python's pip will do. For a card the CUDA libraries come with it, side by side as the wheel wants
 * them.
 */
export async function fetchTensorFlow(folder: string, gpu: boolean, python: string): Promise<TensorFlow> {
  const packages = process.platform === "linux" && !gpu ? "tensorflow-cpu" : "tensorflow";
  const wanted = `${packages}${gpu ? "[and-cuda]" : ""}==${tensorflowVersion}`;
  const machine = process.arch === "arm64" ? "aarch64" : "x86_64";
  const tags =
    process.platform === "linux" && !gpu
      ? ["--platform", `manylinux_2_27_${machine}`, "--python-version", "3.11", "--implementation", "cp"]
      : [];
  const binary = tags.length ? ["--only-binary=:all:", ...tags] : [];
  await run(
    python,
    [
      "-m",
      "pip",
      "install",
      "--quiet",
      "--disable-pip-version-check",
      "--no-compile",
      ...(gpu ? [] : ["--no-deps"]),
      "--target",
      folder,
      ...binary,
      wanted,
    ],
    `pip could not fetch ${wanted}; name a folder that has TensorFlow with --tensorflow`,
  );
  const found = findTensorFlow(folder);
  // Of a gigabyte only the libraries, the headers and CUDA are ever loaded.
  const kept = new Set(["include", ...libraryNames]);
  for (const entry of readdirSync(found.folder))
    if (!kept.has(entry)) await rm(join(found.folder, entry), { recursive: true });
  const beside = new Set(["tensorflow", "nvidia"]);
  for (const entry of readdirSync(folder))
    if (!beside.has(entry)) await rm(join(folder, entry), { recursive: true });
  return found;
}
