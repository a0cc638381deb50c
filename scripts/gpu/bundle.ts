/**
 * Makes the bundle: one file that unpacks and runs on a bare Linux machine (x64, glibc 2.28), without a network.
 *
 *   node dist/scripts/gpu/bundle.js [--out train-merge-gpu.sh] [--without-sources]
 *   sh train-merge-gpu.sh [--parts op,step] [--out gpu-results] …        on the machine with the card
 *
 * --without-sources leaves out what a clone of the project has (10 MB): where one is on the machine already, `--clone
 * FOLDER` (first, or after --unpack) takes it from there.
 *
 * It holds Node (stripped), this build with its sources and conformance suite, the packages that these
 * need, Dawn, the Vulkan loader, and the libraries of X that NVIDIA's driver asks for where a machine
 * has none (where apt-get is here to fetch them). A shell script stands in front of a tar.xz; xz or
 * python3 unpacks it.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { createReadStream, createWriteStream, existsSync, readFileSync } from "node:fs";
import { chmod, cp, mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { parseArgs } from "node:util";
import { brotliDecompressSync } from "node:zlib";
import { packageFolder } from "../../src/package.js";
import { copied, packages } from "./bundle-files.js";

/** Dependencies that nothing here calls: types, and what vite minifies CSS with. */
const unneeded = /(^|\/)(lightningcss|@types\/)/;

/** Files that run: no types, maps, sources or documents. */
const isUseful = (path: string): boolean =>
  !/\.(map|md|markdown|ts|mts|cts|flow|tsbuildinfo|txt)$/.test(path) &&
  !/\/(test|tests|docs|examples?|\.bin)$/.test(path);

interface Locked {
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** Folders of packages and all that they depend on, as package-lock.json places them. */
function closure(names: readonly string[]): string[] {
  const { packages: locked } = JSON.parse(readFileSync(join(packageFolder, "package-lock.json"), "utf8")) as {
    packages: Record<string, Locked>;
  };
  const found = new Set<string>();
  const visit = (name: string, from: string): void => {
    let at = from;
    let key = "";
    for (;;) {
      key = `${at ? `${at}/` : ""}node_modules/${name}`;
      if (locked[key]) break;
      if (!at) return;
      at = at.includes("/node_modules/") ? at.slice(0, at.lastIndexOf("/node_modules/")) : "";
    }
    const { os, cpu, libc, dependencies, optionalDependencies } = locked[key]!;
    const elsewhere =
      (os && !os.includes("linux")) || (cpu && !cpu.includes("x64")) || (libc && !libc.includes("glibc"));
    if (found.has(key) || elsewhere || unneeded.test(key) || !existsSync(join(packageFolder, key))) return;
    found.add(key);
    for (const dependency of Object.keys({ ...dependencies, ...optionalDependencies }))
      visit(dependency, key);
  };
  names.forEach((name) => visit(name, ""));
  return [...found];
}

/** tfjs ships each package seven times over: the one that Node loads is enough, with the wasm files beside it. */
async function trimTfjs(folder: string): Promise<void> {
  const dist = join(folder, "dist");
  for (const name of await readdir(dist)) {
    if (!/\.node\.js$|\.wasm$/.test(name)) await rm(join(dist, name), { recursive: true });
  }
}

async function copyPackages(app: string): Promise<void> {
  for (const key of closure(packages)) {
    const to = join(app, key);
    await mkdir(dirname(to), { recursive: true });
    const nested = join(packageFolder, key, "node_modules");
    await cp(join(packageFolder, key), to, {
      recursive: true,
      filter: (path) => isUseful(path) && path !== nested,
    });
    if (/@tensorflow\/tfjs-[a-z-]+$/.test(key)) await trimTfjs(to);
  }
  const dawn = join(app, "node_modules", "webgpu", "dist");
  for (const platform of await readdir(dawn))
    if (platform !== "linux-x64") await rm(join(dawn, platform), { recursive: true });
  const fonts = join(app, "node_modules", "dejavu-fonts-ttf", "ttf");
  for (const font of await readdir(fonts)) if (font !== "DejaVuSans.ttf") await rm(join(fonts, font));
}

async function copyProject(app: string, withSources: boolean): Promise<void> {
  for (const path of withSources ? copied : copied.filter((path) => path.startsWith("dist/")))
    await cp(join(packageFolder, path), join(app, path), {
      recursive: true,
      filter: (file) => !/\.(map|d\.ts)$/.test(file),
    });
  if (!withSources) return;
  // What the conformance suite reads.
  const golden = join(packageFolder, "test", "golden");
  const others = new Set(
    "mergekit methods.json pictures images.json family-minilm.json published quantised tokenizers arrow torch".split(
      " ",
    ),
  );
  for (const name of await readdir(golden))
    if (!others.has(name))
      await cp(join(golden, name), join(app, "test", "golden", name), { recursive: true });
}

/** The Vulkan loader, out of the package that ships it beside SwiftShader. */
async function unpackLoader(lib: string): Promise<void> {
  const archive = join(packageFolder, "node_modules", "@sparticuz", "chromium", "bin", "swiftshader.tar.br");
  const { status, stderr } = spawnSync("tar", ["-x", "-C", lib, "--wildcards", "*libvulkan.so.1"], {
    input: brotliDecompressSync(readFileSync(archive)),
  });
  if (status !== 0) throw new Error(`tar: ${stderr.toString().trim()}`);
}

/**
 * The libraries that NVIDIA's Vulkan driver is linked with, from Debian's packages. @returns whether
 * they were to be had
 */
async function fetchX(lib: string): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), "train-merge-x-"));
  try {
    execFileSync(
      "apt-get",
      ["download", "-q", "libx11-6", "libxext6", "libxcb1", "libxau6", "libxdmcp6", "libbsd0", "libmd0"],
      { cwd: folder, stdio: "ignore" },
    );
    for (const name of await readdir(folder))
      if (name.endsWith(".deb")) execFileSync("dpkg", ["-x", name, "."], { cwd: folder });
    await mkdir(join(lib, "x11"));
    const found = join(folder, "usr", "lib", "x86_64-linux-gnu");
    for (const name of await readdir(found))
      if (name.includes(".so"))
        await cp(join(found, name), join(lib, "x11", name), { verbatimSymlinks: true });
    return true;
  } catch {
    return false;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function strip(path: string): void {
  const { status } = spawnSync("strip", [path], { stdio: "ignore" });
  if (status !== 0)
    process.stderr.write(`strip is not here (binutils): ${basename(path)} stays as large as it is\n`);
}

/** What a clone has of all that is copied. */
const besideClone = [...copied.filter((path) => !path.startsWith("dist/")), "test/golden"];

/**
 * What stands in front of the archive: it needs a shell and coreutils, and xz with tar or python3.
 * @param start where the archive begins in the file, in bytes from 1
 */
const launcherFor = (start: string): string => `#!/bin/sh
# train-merge on a card: unpacks itself and runs. Options are those of scripts/gpu/main.ts; --unpack FOLDER,
# the first of them, says where to (default: a new folder under TMPDIR, which is removed afterwards); --clone FOLDER,
# the next, takes what a clone of the project has from there.
set -eu
self=$0
start=${start}
folder=""
if [ "\${1:-}" = "--unpack" ]; then
  folder=$2
  shift 2
fi
if [ -z "$folder" ]; then
  folder=$(mktemp -d "\${TMPDIR:-/tmp}/train-merge-gpu.XXXXXX")
  trap 'rm -rf "$folder"' EXIT
  trap 'exit 130' INT TERM
fi
mkdir -p "$folder/app"
if [ "\${1:-}" = "--clone" ]; then
  (cd "$2" && cp -R --parents ${besideClone.join(" ")} "$folder/app")
  shift 2
fi
if [ ! -e "$folder/unpacked" ]; then
  if command -v xz > /dev/null 2>&1 && command -v tar > /dev/null 2>&1; then
    tail -c +$start "$self" | xz -d | tar -x -C "$folder"
  elif command -v python3 > /dev/null 2>&1; then
    python3 -c 'import sys, tarfile
archive = open(sys.argv[1], "rb")
archive.seek(int(sys.argv[2]) - 1)
tarfile.open(fileobj=archive, mode="r|xz").extractall(sys.argv[3])' "$self" "$start" "$folder"
  else
    echo "train-merge-gpu: neither xz with tar nor python3 is here to unpack with" >&2
    exit 2
  fi
  : > "$folder/unpacked"
fi
code=0
TRAIN_MERGE_GPU_LIBRARIES="$folder/lib" "$folder/bin/node" "$folder/app/dist/scripts/gpu/main.js" "$@" || code=$?
exit $code
`;

/** The launcher with its own length in it, which as many blanks as digits are missing do not change. */
function launcher(): string {
  const widest = 8;
  const start = Buffer.byteLength(launcherFor("0".repeat(widest))) + 1;
  return launcherFor(String(start).padEnd(widest));
}

const megabytes = async (path: string): Promise<string> => `${((await stat(path)).size / 1e6).toFixed(1)} MB`;

async function main(): Promise<void> {
  const { values: o } = parseArgs({
    options: {
      out: { type: "string", default: "train-merge-gpu.sh" },
      "without-sources": { type: "boolean", default: false },
    },
  });
  if (process.platform !== "linux" || process.arch !== "x64")
    throw new Error("the bundle is for Linux on x64 and is made there");
  const staging = await mkdtemp(join(tmpdir(), "train-merge-bundle-"));
  try {
    for (const folder of ["app", "bin", "lib"]) await mkdir(join(staging, folder));
    await cp(process.execPath, join(staging, "bin", "node"));
    await copyProject(join(staging, "app"), !o["without-sources"]);
    await copyPackages(join(staging, "app"));
    strip(join(staging, "bin", "node"));
    strip(join(staging, "app", "node_modules", "webgpu", "dist", "linux-x64", "dawn.node"));
    await unpackLoader(join(staging, "lib"));
    if (!(await fetchX(join(staging, "lib"))))
      process.stderr.write(
        "apt-get could not fetch the libraries of X: a machine without them needs its own\n",
      );
    const archive = join(staging, "app.tar.xz");
    // Names in order and no owners: the same inputs make the same archive. The filter is for x64
    // programs, most of it.
    const tar = [
      "--sort=name",
      "--owner=0",
      "--group=0",
      "--numeric-owner",
      "--mtime=2020-01-01",
      "-c",
      "-C",
      staging,
      "app",
      "bin",
      "lib",
    ];
    const packed = spawnSync(
      "sh",
      ["-c", 'tar "$@" | xz --x86 --lzma2=preset=9e,dict=128MiB > "$ARCHIVE"', "sh", ...tar],
      { env: { ...process.env, ARCHIVE: archive }, stdio: ["ignore", "inherit", "inherit"] },
    );
    if (packed.status !== 0) throw new Error("tar and xz could not pack the bundle");
    const out = resolve(o.out);
    await writeFile(out, launcher());
    await pipeline(createReadStream(archive), createWriteStream(out, { flags: "a" }));
    await chmod(out, 0o755);
    process.stdout.write(`${out}: ${await megabytes(out)}\n`);
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}

await main();
