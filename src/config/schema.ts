/** All settings of a run, checked together. */
import { z } from "zod";
import { messageOf } from "../errors.js";
import { gates } from "../merge/table.js";
import { usesLabels } from "../train/passes.js";
import { settings } from "./settings.js";

export const settingsSchema = z
  .strictObject(
    Object.fromEntries(Object.entries(settings).map(([key, { schema }]) => [key, schema])) as {
      [K in keyof typeof settings]: (typeof settings)[K]["schema"];
    },
  )
  .superRefine((value, context) => {
    const problem = (key: keyof typeof settings, message: string) =>
      context.addIssue({ code: "custom", path: [key], message });
    if (value.adaptOn === "test" && usesLabels(value.loss))
      problem(
        "adaptOn",
        "test inputs may only be trained on without their labels; choose --loss entropy or distillation",
      );
    if (value.pack === "sparse" && (value.packBase === "int8" || value.packBase === "int4"))
      problem(
        "packBase",
        "a rounded base is not for --pack sparse: the result is written from what is on the device",
      );
    if (value.patience !== undefined && !usesLabels(value.loss))
      problem("patience", `the held-out loss is of labels, and --loss ${value.loss} may not look at them`);
    if (value.loss === "block-distillation") {
      for (const key of ["average", "shrink", "pull"] as const)
        if (value[key] !== 0) problem(key, "--loss block-distillation does not look at it");
      if (value.batchesPerStep !== 1)
        problem("batchesPerStep", "--loss block-distillation takes one batch of each task a step");
    }
    if (value.variant !== "original" && value.method === "supermerge")
      problem("variant", "only adamerging has variants");
    if (value.taskWeights && value.taskWeights.length !== value.tasks.length)
      problem("taskWeights", `${value.taskWeights.length} weights for ${value.tasks.length} tasks`);
    try {
      if (value.init !== "search") gates[value.gate].inverse(value.init);
    } catch (error) {
      problem("init", `the ${value.gate} gate cannot start there: ${messageOf(error)}`);
    }
  });

type Parsed = z.infer<typeof settingsSchema>;

/** All settings of a run, checked. */
export type Settings = {
  readonly [K in keyof Parsed]: Parsed[K] extends (infer E)[] | undefined
    ? readonly E[] | Extract<Parsed[K], undefined>
    : Parsed[K];
};
