import { existsSync, readdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { UserError } from "../errors.js";
import { runCommand } from "./command.js";

/** The TensorFlow that is fetched where the user names none: the newest that was seen to work. */
const tensorflowVersion = "2.21.0";

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
function placesOfTensorFlow(folder: string): string[] {
  const places = [folder, join(folder, "tensorflow")];
  for (const lib of [join(folder, "lib"), join(folder, "lib64")]) {
    if (!existsSync(lib)) continue;
    for (const python of readdirSync(lib)) places.push(join(lib, python, "site-packages", "tensorflow"));
  }
  return places;
}

/** Finds TensorFlow's libraries and headers. @throws UserError naming what was looked for. */
export function findTensorFlow(given: string): TensorFlow {
  const folder = placesOfTensorFlow(resolve(given)).find(
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

/** What pip is asked for. */
interface Wheel {
  /** With its version. */
  readonly requirement: string;
  readonly options: readonly string[];
}

/** On Linux the wheel for the CPU is named by its tags, so that any Python's pip will do. */
function wheelFor(gpu: boolean): Wheel {
  // The CUDA libraries come with it, side by side as the wheel wants them.
  if (gpu) return { requirement: `tensorflow[and-cuda]==${tensorflowVersion}`, options: [] };
  if (process.platform !== "linux")
    return { requirement: `tensorflow==${tensorflowVersion}`, options: ["--no-deps"] };
  const machine = process.arch === "arm64" ? "aarch64" : "x86_64";
  return {
    requirement: `tensorflow-cpu==${tensorflowVersion}`,
    options: [
      "--no-deps",
      "--only-binary=:all:",
      `--platform=manylinux_2_27_${machine}`,
      "--python-version=3.11",
      "--implementation=cp",
    ],
  };
}

/** Removes what a folder holds beside these. */
async function keepOnly(folder: string, kept: readonly string[]): Promise<void> {
  for (const entry of readdirSync(folder))
    if (!kept.includes(entry)) await rm(join(folder, entry), { recursive: true });
}

/** Fetches TensorFlow with pip into `folder`. */
export async function fetchTensorFlow(folder: string, gpu: boolean, python: string): Promise<TensorFlow> {
  const { requirement, options } = wheelFor(gpu);
  const install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"];
  await runCommand(
    python,
    [...install, ...options, "--target", folder, requirement],
    `pip could not fetch ${requirement}; name a folder that has TensorFlow with --tensorflow`,
  );
  const found = findTensorFlow(folder);
  // Of a gigabyte only the libraries, the headers and CUDA are ever loaded.
  await keepOnly(found.folder, ["include", ...libraryNames]);
  await keepOnly(folder, ["tensorflow", "nvidia"]);
  return found;
}
