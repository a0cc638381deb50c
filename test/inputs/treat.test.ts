import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Resources } from "../../src/checkpoint/files.js";
import { settingsSchema } from "../../src/config/schema.js";
import { Stopped } from "../../src/errors.js";
import { writeMerge } from "../../src/folder/merge.js";
import { recipeOf } from "../../src/inputs/locate.js";
import { openModels, type OpenedModels } from "../../src/inputs/models.js";
import { treatExperts } from "../../src/inputs/treat.js";
import { treatedMethod } from "../../src/methods/treated.js";
import { resolveValues } from "../../src/methods/values.js";
import { loadTasks, pickTasks } from "../../src/tasks/registry.js";
import { temporaryFolder } from "../helpers.js";

const folder = await temporaryFolder();
const options = settingsSchema.parse({ tasks: ["rte", "cb", "copa"], trim: 0.3, dareP: 0.6, seed: 4 });
const quiet = { note() {}, progress() {}, step() {}, stopping: () => false };

/** The experts that ship, opened as a run opens them. */
async function open(resources: Resources): Promise<OpenedModels> {
  const recipe = await recipeOf(options);
  const tasks = pickTasks(await loadTasks(), options.tasks);
  return openModels({ recipe, options, tasks, data: "", out: "", hooks: quiet, resources });
}

test.each(["ties", "dare", "tsv-m"] as const)(
  "--treat %s: all experts at once are each of them for itself",
  async (treat) => {
    const resources = new Resources();
    try {
      const opened = await open(resources);
      const out = join(folder, treat);
      const treated = await treatExperts(out, opened, { ...options, treat }, quiet);
      expect(treated.map(({ label }) => label)).toEqual(options.tasks);
      const { base, experts } = opened.family;
      for (const [which, { label, checkpoint }] of treated.entries()) {
        await checkpoint.close();
        const values = resolveValues(
          treatedMethod,
          {
            which,
            by: treat,
            density: 0.3,
            dareP: treat === "dare" ? 0.6 : 0,
            scale: treat === "tsv-m" ? 2 : 1,
            seed: 4,
          },
          3,
        );
        const alone = join(folder, `${treat}-${label}`);
        const merge = { method: treatedMethod, values, base, inputs: experts, dtype: "F32" } as const;
        await writeMerge(
          alone,
          { ...merge, shardSize: options.shardSize, reads: opened.plain.parameters },
          quiet,
        );
        const weights = (where: string) => readFileSync(join(where, "model.safetensors"));
        expect(weights(join(out, "treated", label)).equals(weights(alone)), label).toBe(true);
      }
    } finally {
      await resources.close();
    }
  },
);

test("a treatment that is stopped leaves nothing", async () => {
  const resources = new Resources();
  try {
    const out = join(folder, "stopped");
    const stopping = () => true;
    const treating = treatExperts(
      out,
      await open(resources),
      { ...options, treat: "ties" },
      { ...quiet, stopping },
    );
    await expect(treating).rejects.toThrow(Stopped);
    expect(existsSync(out) ? readdirSync(out) : []).toEqual([]);
  } finally {
    await resources.close();
  }
});
