// Writes data/native: what `train-merge setup native` fetches, by version and hash. Run it to move to other versions
// (it asks npm and PyPI, fetches next to nothing), then build the engine with them on every platform that you have.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const out = join(dirname(fileURLToPath(import.meta.url)), "..", "data", "native");
/** tfjs-node's last release, and Node's headers. */
const packages = { "@tensorflow/tfjs-node": "4.22.0", "node-api-headers": "1.9.0" };
/** The newest TensorFlow that was seen to work; on Linux the wheel of one Python, whose code is never run. */
const tensorflow = "2.21.0";
const python = "3.11";

function run(command, args, cwd) {
  const { status, stderr } = spawnSync(command, args, { cwd, encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}\n${stderr}`);
}

/** The wheels of a version on PyPI: file name to SHA-256. */
async function wheelsOf(name, version) {
  const response = await fetch(`https://pypi.org/simple/${name}/`, {
    headers: { accept: "application/vnd.pypi.simple.v1+json" },
  });
  const { files } = await response.json();
  const prefix = `${name.replaceAll("-", "_")}-${version}-`;
  return new Map(
    files
      .filter(({ filename }) => filename.startsWith(prefix))
      .map((one) => [one.filename, one.hashes.sha256]),
  );
}

/** A line of a requirements file, with the hashes of the wheels whose names match. */
async function pinned(name, version, pattern) {
  const hashes = [...(await wheelsOf(name, version))].filter(([file]) => pattern.test(file));
  if (hashes.length === 0) throw new Error(`${name} ${version}: no wheel is ${pattern}`);
  return `${name}==${version} ${hashes.map(([, hash]) => `--hash=sha256:${hash}`).join(" ")}`;
}

/** NVIDIA's libraries as pip chooses them for this TensorFlow today. */
function cudaOf(scratch) {
  const report = join(scratch, "report.json");
  const tags = ["_2_28", "_2_27", "_2_17", "2014", "_2_12", "2010", "_2_5", "1"];
  const platforms = tags.map((tag) => `--platform=manylinux${tag}_x86_64`);
  const resolve = "-m pip install --dry-run --ignore-installed --only-binary=:all: --implementation=cp".split(
    " ",
  );
  const places = ["--report", report, "--target", join(scratch, "target")];
  const wanted = [`--python-version=${python}`, ...platforms, `tensorflow[and-cuda]==${tensorflow}`];
  run("python3", [...resolve, ...places, ...wanted]);
  return JSON.parse(readFileSync(report, "utf8"))
    .install.filter(({ metadata }) => metadata.name.startsWith("nvidia-"))
    .map(
      ({ metadata: { name, version }, download_info: { archive_info } }) =>
        `${name}==${version} --hash=sha256:${archive_info.hashes.sha256}`,
    );
}

const scratch = mkdtempSync(join(tmpdir(), "pin-native-"));
try {
  mkdirSync(out, { recursive: true });
  const manifest = { name: "native", private: true, dependencies: packages };
  writeFileSync(join(scratch, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
  run("npm", ["install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund"], scratch);
  for (const file of ["package.json", "package-lock.json"])
    writeFileSync(join(out, file), readFileSync(join(scratch, file)));
  const linux = (machine) => new RegExp(`-cp${python.replace(".", "")}-.*manylinux.*_${machine}\\.whl$`);
  const requirements = {
    "linux-x64": [await pinned("tensorflow-cpu", tensorflow, linux("x86_64"))],
    "linux-x64-gpu": [await pinned("tensorflow", tensorflow, linux("x86_64")), ...cudaOf(scratch)],
    "linux-arm64": [await pinned("tensorflow", tensorflow, linux("aarch64"))],
    // pip takes the wheel of the Python that it runs in.
    "darwin-arm64": [await pinned("tensorflow", tensorflow, /macosx_.*_arm64\.whl$/)],
  };
  for (const [platform, lines] of Object.entries(requirements))
    writeFileSync(join(out, `${platform}.txt`), `${lines.join("\n")}\n`);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
