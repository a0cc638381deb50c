import type { Command } from "commander";

const examples = `
Examples:
  $ train-merge setup native                              pip fetches TensorFlow for the CPU
  $ train-merge setup native --tensorflow ~/venv          one that is there: a virtual environment, site-packages
  $ train-merge setup native --gpu                        with CUDA, for an NVIDIA card
  $ train-merge setup native --remove`;

interface SetupFlags {
  gpu?: boolean;
  tensorflow?: string;
  python: string;
  remove?: boolean;
}

export function addSetup(program: Command): void {
  const setup = program.command("setup").description("build an engine that npm alone cannot bring");
  setup
    .command("native")
    .description(
      "compile tfjs-node against a TensorFlow wheel's libraries, into your cache: the engines node and node-gpu",
    )
    .option("--gpu", "fetch TensorFlow with CUDA, for an NVIDIA card")
    .option(
      "--tensorflow <folder>",
      "use the TensorFlow in this folder; nothing of it is copied (default: pip fetches one)",
    )
    .option("--python <command>", "the Python whose pip fetches TensorFlow", "python3")
    .option("--remove", "remove what this command built")
    .addHelpText("after", examples)
    .action(async ({ gpu = false, tensorflow, python, remove }: SetupFlags) => {
      const { removeNative, setupNative } = await import("../setup/native.js");
      if (remove) {
        process.stdout.write((await removeNative()) ? "removed\n" : "there was nothing to remove\n");
        return;
      }
      const {
        folder,
        tensorflow: version,
        device,
      } = await setupNative({
        gpu,
        tensorflow,
        python,
        note: (message) => process.stderr.write(`${message}\n`),
      });
      process.stdout.write(
        `TensorFlow ${version} on the ${device} is ready as --backend ` +
          `${device === "gpu" ? "node-gpu" : "node"}, in ${folder}\n`,
      );
    });
}
