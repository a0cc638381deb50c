/**
 * A SLURM cluster of one machine, this one, for trying `train-merge tree --executor slurm`: needs
 * Debian's slurm-wlm and munge, and root.
 *
 *   node scripts/one-slurm.mjs start FOLDER     prints the SLURM_CONF that makes sbatch and the others use it
 *   node scripts/one-slurm.mjs stop FOLDER
 */
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, hostname, totalmem } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

/** Why no cluster can be started here, or undefined. */
export function slurmMissing() {
  if (process.getuid?.() !== 0) return "starting SLURM's daemons needs root";
  for (const program of ["slurmctld", "slurmd", "sbatch", "munged"]) {
    if (!["/usr/sbin", "/usr/bin", "/sbin"].some((folder) => existsSync(join(folder, program))))
      return `there is no ${program} here (Debian: apt-get install slurm-wlm munge)`;
  }
  return undefined;
}

const path = (env = process.env) => ({ ...env, PATH: `${env.PATH}:/usr/sbin:/sbin` });

export async function startSlurm(folder) {
  const root = resolve(folder);
  for (const part of ["state", "spool", "munge"])
    mkdirSync(join(root, part), { recursive: true, mode: 0o755 });
  const key = join(root, "munge", "key");
  if (!existsSync(key)) writeFileSync(key, randomBytes(1024), { mode: 0o600 });
  const [host, socket, conf] = [hostname(), join(root, "munge", "socket"), join(root, "slurm.conf")];
  writeFileSync(
    conf,
    `${[
      "ClusterName=one",
      `SlurmctldHost=${host}(127.0.0.1)`,
      "SlurmUser=root",
      "SlurmdUser=root",
      "AuthType=auth/munge",
      `AuthInfo=socket=${socket}`,
      "ProctrackType=proctrack/linuxproc",
      "TaskPlugin=task/none",
      "SelectType=select/cons_tres",
      "SelectTypeParameters=CR_CPU_Memory",
      "ReturnToService=2",
      "MpiDefault=none",
      "SlurmctldPort=16817",
      "SlurmdPort=16818",
      "JobAcctGatherType=jobacct_gather/linux",
      "JobAcctGatherFrequency=1",
      "JobCompType=jobcomp/filetxt",
      `JobCompLoc=${join(root, "jobcomp.txt")}`,
      "MinJobAge=3600",
      "SchedulerParameters=sched_interval=2",
      "KillWait=5",
      `StateSaveLocation=${join(root, "state")}`,
      `SlurmdSpoolDir=${join(root, "spool")}`,
      `SlurmctldPidFile=${join(root, "slurmctld.pid")}`,
      `SlurmdPidFile=${join(root, "slurmd.pid")}`,
      `SlurmctldLogFile=${join(root, "slurmctld.log")}`,
      `SlurmdLogFile=${join(root, "slurmd.log")}`,
      `NodeName=${host} NodeAddr=127.0.0.1 CPUs=${availableParallelism()} ` +
        `RealMemory=${Math.floor((0.9 * totalmem()) / 1e6)} State=UNKNOWN`,
      `PartitionName=main Nodes=${host} Default=YES MaxTime=INFINITE State=UP`,
    ].join("\n")}\n`,
  );
  const env = path({ ...process.env, SLURM_CONF: conf });
  execFileSync(
    "munged",
    [
      "--force",
      `--key-file=${key}`,
      `--socket=${socket}`,
      `--pid-file=${join(root, "munge", "pid")}`,
      `--log-file=${join(root, "munge", "log")}`,
      `--seed-file=${join(root, "munge", "seed")}`,
    ],
    { env, stdio: "ignore" },
  );
  for (const daemon of ["slurmctld", "slurmd"]) {
    const child = spawn(daemon, ["-f", conf, "-D"], { env, stdio: "ignore", detached: true });
    writeFileSync(join(root, `${daemon}.pid`), String(child.pid));
    child.unref();
  }
  for (let i = 0; i < 60; i++) {
    try {
      if (
        /idle/.test(
          execFileSync("sinfo", ["--noheader", "--format=%T"], {
            env,
            encoding: "utf8",
            stdio: ["ignore", "pipe", "ignore"],
          }),
        )
      )
        return conf;
    } catch {
      // Not up yet.
    }
    await new Promise((done) => setTimeout(done, 500));
  }
  throw new Error(`the cluster did not come up; its logs are in ${root}`);
}

/** True while the process runs; one that has ended and that nobody has waited for (a zombie) does not. */
function runs(pid) {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

/**
 * Ends the daemons and waits until they have: slurmctld writes its state once more as it goes, into a
 * folder that the caller may want to remove.
 */
export async function stopSlurm(folder) {
  for (const file of ["slurmd.pid", "slurmctld.pid", "munge/pid"]) {
    const at = join(resolve(folder), file);
    if (!existsSync(at)) continue;
    const pid = Number(readFileSync(at, "utf8").trim());
    for (let i = 0; runs(pid) && i < 300; i++) {
      try {
        if (i === 0) process.kill(pid, "SIGTERM");
        if (i === 200) process.kill(pid, "SIGKILL");
      } catch {
        // It ended meanwhile, or its number is somebody else's now.
        break;
      }
      await new Promise((done) => setTimeout(done, 100));
    }
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [what, folder] = process.argv.slice(2);
  const missing = slurmMissing();
  if (missing !== undefined || folder === undefined) {
    console.error(missing ?? "usage: node scripts/one-slurm.mjs start|stop FOLDER");
    process.exit(1);
  }
  if (what === "start") console.log(`export SLURM_CONF=${await startSlurm(folder)}`);
  else await stopSlurm(folder);
}
