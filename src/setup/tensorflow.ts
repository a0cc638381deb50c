import { existsSync, readdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { UserError } from "../errors.js";
import { packageFolder } from "../package.js";
import { runCommand } from "./command.js";

/** What is fetched, by version and hash: see scripts/pin-native.mjs. */
export const nativePins = join(packageFolder, "data", "native");

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

/** Linux wheels are named by their tags, so that any Python's pip will do; of none is code run. */
const linuxTags = ["_2_28", "_2_27", "_2_17", "2014", "_2_12", "2010"];

/** What pip fetches: wheels by version and hash (data/native, made by scripts/pin-native.mjs), and nothing else. */
function pipOptions(gpu: boolean): string[] {
  const { platform, arch } = process;
  let machine = `${platform}-${arch}`;
  if (gpu) machine += "-gpu";
  const requirements = join(nativePins, `${machine}.txt`);
  if (!existsSync(requirements))
    throw new UserError(
      `setup native: there is no TensorFlow to fetch for ${machine}; name a folder that has one with --tensorflow`,
    );
  const options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--requirement", requirements];
  if (platform !== "linux") return options;
  const processor = new Map([["arm64", "aarch64"]]).get(arch) ?? "x86_64";
  const platforms = linuxTags.map((tag) => `--platform=manylinux${tag}_${processor}`);
  return [...options, ...platforms, "--python-version=3.11", "--implementation=cp"];
}

/** Removes what a folder holds beside these. */
async function keepOnly(folder: string, kept: readonly string[]): Promise<void> {
  for (const entry of readdirSync(folder))
    if (!kept.includes(entry)) await rm(join(folder, entry), { recursive: true });
}

/** Fetches TensorFlow with pip into `folder`. @throws UserError where a wheel is not what it was when it was pinned */
export async function fetchTensorFlow(folder: string, gpu: boolean, python: string): Promise<TensorFlow> {
  const install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"];
  await runCommand(
    python,
    [...install, ...pipOptions(gpu), "--target", folder],
    "pip could not fetch TensorFlow; name a folder that has it with --tensorflow",
  );
  const found = findTensorFlow(folder);
  // Of a gigabyte only the libraries, the headers and CUDA are ever loaded.
  await keepOnly(found.folder, ["include", ...libraryNames]);
  await keepOnly(folder, ["tensorflow", "nvidia"]);
  return found;
}
