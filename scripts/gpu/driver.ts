/** Finds the card's Vulkan driver where drivers put it, and says which link between it and Dawn is missing. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, isAbsolute, join } from "node:path";

export interface Driver {
  /** What a process needs in its environment to use the driver. */
  readonly env: Readonly<Record<string, string>>;
  /** Each link that was looked at, and what was found. */
  readonly links: readonly string[];
  /** The one that is missing, and what mends it; undefined where none is. */
  readonly missing?: string | undefined;
}

/** Folders in which drivers leave their manifest (icd.d), the loader's own first. */
const manifestFolders = [
  "/usr/local/etc/vulkan/icd.d",
  "/usr/local/share/vulkan/icd.d",
  "/etc/vulkan/icd.d",
  "/usr/share/vulkan/icd.d",
  "/usr/local/nvidia/share/vulkan/icd.d",
  "/opt/nvidia/share/vulkan/icd.d",
  "/run/opengl-driver/share/vulkan/icd.d",
  "/usr/lib/wsl/lib",
];

/** Folders with a driver's libraries that the linker may not know. */
const libraryFolders = [
  "/usr/local/nvidia/lib64",
  "/usr/local/nvidia/lib",
  "/usr/lib/x86_64-linux-gnu/nvidia/current",
  "/usr/lib/x86_64-linux-gnu",
  "/usr/lib64",
  "/run/opengl-driver/lib",
];

/** Drivers that compute on the CPU are no card. */
const isSoftware = (manifest: string): boolean => /lvp|lavapipe|swiftshader/i.test(basename(manifest));

/** The manifests of cards' drivers, the user's own choice alone where there is one. */
function manifests(): string[] {
  const named = process.env["VK_DRIVER_FILES"] ?? process.env["VK_ICD_FILENAMES"];
  if (named) return named.split(":").filter((path) => existsSync(path));
  return manifestFolders.flatMap((folder) => {
    if (!existsSync(folder)) return [];
    const files = readdirSync(folder).filter((name) => name.endsWith(".json") && !isSoftware(name));
    // NVIDIA's stands first where there are several.
    return files
      .sort((a, b) => Number(b.includes("nvidia")) - Number(a.includes("nvidia")))
      .map((name) => join(folder, name));
  });
}

/** Why a library cannot be loaded, in the linker's words; undefined where it can. Tried in a process of its own. */
function loadProblem(library: string, searched: string): string | undefined {
  const program =
    "try { process.dlopen({ exports: {} }, process.argv[1]) } catch (error) { console.log(error.message) }";
  const { stdout, signal } = spawnSync(process.execPath, ["-e", program, library], {
    encoding: "utf8",
    env: { ...process.env, LD_LIBRARY_PATH: searched },
    timeout: 20_000,
  });
  if (signal) return `loading it ended with ${signal}`;
  // A library that was loaded is no addon of Node's, which is then what Node complains of.
  const [line = ""] = stdout.trim().split("\n");
  return line === "" || /self-register|no such symbol|napi_register/i.test(line) ? undefined : line;
}

/** What nvidia-smi says of the first card; undefined where it is not there. */
export function nvidiaCard(): { name: string; driver: string; memory: number } | undefined {
  try {
    const query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"];
    const [line = ""] = execFileSync("nvidia-smi", query, {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
      timeout: 20_000,
    }).split("\n");
    const [name = "", driver = "", mebibytes = "0"] = line.split(", ");
    return { name, driver, memory: Number(mebibytes) * 2 ** 20 };
  } catch {
    return undefined;
  }
}

/** @param bundled the folder with the Vulkan loader, and in `x11` the libraries of X that NVIDIA's driver names */
export function findDriver(bundled: string): Driver {
  const links: string[] = [];
  const env: Record<string, string> = {};
  const fail = (missing: string): Driver => ({ env, links, missing });
  const loader = join(bundled, "libvulkan.so.1");
  if (!existsSync(loader))
    return fail(`the Vulkan loader: ${loader} is not in the bundle; make the bundle anew`);
  links.push(`Vulkan loader: ${loader}`);
  const nodes = ["/dev/nvidia0", "/dev/dri/renderD128", "/dev/dxg"].filter((path) => existsSync(path));
  links.push(`device files: ${nodes.join(", ") || "none"}`);
  const found = manifests();
  const [manifest] = found;
  if (manifest === undefined) {
    const where =
      nodes.length > 0 ? "the card is there, its Vulkan driver is not" : "no card's device file either";
    return fail(
      `the driver's manifest: no *.json in ${manifestFolders.join(", ")} (${where}); name it in VK_DRIVER_FILES`,
    );
  }
  links.push(`driver's manifest: ${found.join(", ")}`);
  env["VK_DRIVER_FILES"] = found.join(":");
  const named = (JSON.parse(readFileSync(manifest, "utf8")) as { ICD?: { library_path?: string } }).ICD
    ?.library_path;
  if (named === undefined) return fail(`the driver's library: ${manifest} names none`);
  const beside = named.includes("/") && !isAbsolute(named) ? join(dirname(manifest), named) : named;
  const folders = [
    bundled,
    ...(process.env["LD_LIBRARY_PATH"] ?? "").split(":").filter(Boolean),
    ...libraryFolders.filter((folder) => existsSync(folder)),
  ];
  // The libraries of X come last: a machine's own are taken where it has them.
  const searched = [...folders, join(bundled, "x11")].join(":");
  env["LD_LIBRARY_PATH"] = searched;
  const problem = loadProblem(beside, searched);
  if (problem !== undefined)
    return fail(`the driver's library: ${named} (named by ${manifest}) cannot be loaded: ${problem}`);
  links.push(`driver's library: ${named}`);
  return { env, links };
}
