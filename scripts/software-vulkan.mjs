// A Vulkan on the CPU for tests of the webgpu engine: SwiftShader, out of the package that ships it for
// headless Chromium.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { brotliDecompressSync } from "node:zlib";

/**
 * Unpacks the driver (once) and returns the environment that makes a process use it: nothing where the user has named
 * a driver, where the package is missing, or where it would not run (it is for Linux on x64).
 */
export function softwareVulkan(root) {
  const archive = join(root, "node_modules", "@sparticuz", "chromium", "bin", "swiftshader.tar.br");
  if (
    process.platform !== "linux" ||
    process.arch !== "x64" ||
    process.env.VK_DRIVER_FILES ||
    !existsSync(archive)
  )
    return {};
  // A card of the machine's own is the better test.
  if (existsSync("/dev/dri/renderD128") || existsSync("/dev/nvidia0")) return {};
  const folder = join(root, "node_modules", ".cache", "swiftshader");
  if (!existsSync(folder)) {
    const staging = `${folder}.${process.pid}`;
    mkdirSync(staging, { recursive: true });
    const { status } = spawnSync("tar", ["-x", "-C", staging], {
      input: brotliDecompressSync(readFileSync(archive)),
    });
    if (status !== 0) {
      rmSync(staging, { recursive: true, force: true });
      return {};
    }
    renameSync(staging, folder);
  }
  const driver = readdirSync(folder).find((name) => name.endsWith("icd.json"));
  if (driver === undefined) return {};
  return {
    VK_DRIVER_FILES: join(folder, driver),
    LD_LIBRARY_PATH: [folder, process.env.LD_LIBRARY_PATH].filter(Boolean).join(":"),
  };
}
