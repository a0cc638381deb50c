/** The state of a fine-tuning between epochs: finetune.json and finetune.safetensors. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { tensor, type Variable } from "@tensorflow/tfjs-core";
import { openSafetensors } from "../checkpoint/safetensors.js";
import { writeSafetensors, type TensorSource } from "../checkpoint/write.js";
import { UserError } from "../errors.js";
import { finetuneFile, fileNames } from "../folder/files.js";
import { fromFloat32, toFloat32 } from "../tensor/dtype.js";
import type { EpochScore } from "./tasks.js";

/** Where a fine-tuning stands. */
export interface Progress {
  /** Steps that are done. */
  readonly step: number;
  /** The epoch with the lowest loss so far. */
  readonly best: { readonly loss: number; readonly scores: readonly EpochScore[] } | undefined;
}

/** Tensors on the device, by kind and name. */
export type VariableMaps = Readonly<Record<string, ReadonlyMap<string, Variable>>>;

/** Copies every tensor of some maps into one file, and says where the training stands. */
export async function saveEpoch(
  out: string,
  identity: string,
  { step, best }: Progress,
  { taken, maps }: { readonly taken: ReadonlyMap<string, number>; readonly maps: VariableMaps },
): Promise<void> {
  const sources = Object.entries(maps).flatMap(([kind, map]) =>
    [...map].map(([name, v]): TensorSource => ({
      name: `${kind}/${name}`,
      dtype: "F32",
      shape: v.shape,
      bytes: async () => fromFloat32(await v.data<"float32">(), "F32"),
    })),
  );
  await writeSafetensors(join(out, fileNames.finetuneTensors), sources, { step: String(step) });
  await finetuneFile.write(out, { identity, step, best, taken: Object.fromEntries(taken) });
}

/**
 * Puts the saved tensors into the maps.
 * @param taken filled with the steps that each tensor took part in
 * @throws UserError where there is no state, or one of another fine-tuning
 */
export async function loadEpoch(
  out: string,
  identity: string,
  taken: Map<string, number>,
  maps: VariableMaps,
): Promise<Progress> {
  const path = join(out, fileNames.finetuneTensors);
  const saved = await finetuneFile.read(out);
  if (!saved || !existsSync(path))
    throw new UserError(`--resume: ${out} holds no state of a fine-tuning; start without --resume`);
  if (saved.identity !== identity)
    throw new UserError(
      `--resume: ${finetuneFile.in(out)} was made with other settings or data; use the same, or start ` +
        "without --resume",
    );
  const { step = 0, best } = saved;
  for (const [name, count] of Object.entries(saved.taken ?? {})) taken.set(name, count);
  const file = await openSafetensors(path);
  try {
    if (file.metadata?.["step"] !== String(step))
      throw new UserError(
        `--resume: ${finetuneFile.in(out)} and ${fileNames.finetuneTensors} are of two moments; start without --resume`,
      );
    for (const [kind, map] of Object.entries(maps)) {
      for (const [name, v] of map) {
        const value = tensor(toFloat32(await file.read(`${kind}/${name}`)), v.shape);
        v.assign(value);
        value.dispose();
      }
    }
  } finally {
    await file.close();
  }
  return { step, best };
}
