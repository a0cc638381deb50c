/** The state of a fine-tuning between epochs: finetune.json and finetune.safetensors. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { tensor, type Variable } from "@tensorflow/tfjs-core";
import type { z } from "zod";
import { openSafetensors, type SafetensorsFile } from "../checkpoint/safetensors.js";
import { writeSafetensors, type TensorSource } from "../checkpoint/write.js";
import { UserError } from "../errors.js";
import { finetuneFile, fileNames } from "../folder/files.js";
import { fromFloat32, toFloat32 } from "../tensor/dtype.js";
import type { EpochScore } from "./tasks.js";

/** Where a fine-tuning stands. */
export interface Progress {
  /** Steps that are done. */
  readonly step: number;
  /** Within an epoch: the sum of its losses so far. */
  readonly lossSum?: number | undefined;
  /** The epoch with the lowest loss so far. */
  readonly best: { readonly loss: number; readonly scores: readonly EpochScore[] } | undefined;
}

/** Tensors on the device, by kind and name. */
export type VariableMaps = Readonly<Record<string, ReadonlyMap<string, Variable>>>;

/** Copies every tensor of some maps into one file, and says where the training stands. */
export async function saveEpoch(
  out: string,
  identity: string,
  { step, lossSum, best }: Progress,
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
  const state = { identity, step, lossSum, best, taken: Object.fromEntries(taken) };
  // The tensors' file says all of it: a kill between two files leaves one that can be gone on from.
  await writeSafetensors(join(out, fileNames.finetuneTensors), sources, { state: JSON.stringify(state) });
  await finetuneFile.write(out, state);
}

/** Marks a folder as a fine-tuning under way, before it has a state. */
export const markBegun = (out: string, identity: string): Promise<void> =>
  finetuneFile.write(out, { identity, step: 0 });

/** Whether a folder has a state to go on from. */
export const hasEpoch = (out: string): boolean => existsSync(join(out, fileNames.finetuneTensors));

/** That a folder is of another fine-tuning. */
export const madeOtherwise = (out: string): UserError =>
  new UserError(
    `--resume: ${finetuneFile.in(out)} was made with other settings or data; use the same, or start without --resume`,
  );

/** @throws UserError where it is damaged */
function parsedState(text: string, path: string): z.infer<typeof finetuneFile.schema> {
  try {
    return finetuneFile.schema.parse(JSON.parse(text));
  } catch {
    throw new UserError(`${path}: its state is damaged; start without --resume`);
  }
}

/** What a state's file says of itself, or as older versions wrote it, the file beside it. */
async function savedState(out: string, file: SafetensorsFile): Promise<z.infer<typeof finetuneFile.schema>> {
  const { state, step } = file.metadata;
  if (state !== undefined) return parsedState(state, file.path);
  const saved = await finetuneFile.read(out);
  if (saved && String(saved.step) === step) return saved;
  throw new UserError(
    `--resume: ${finetuneFile.in(out)} and ${fileNames.finetuneTensors} are of two moments; start without --resume`,
  );
}

/**
 * Puts the saved tensors into the maps.
 * @param taken filled with the steps that each tensor took part in
 * @throws UserError where the state is one of another fine-tuning
 */
export async function loadEpoch(
  out: string,
  identity: string,
  taken: Map<string, number>,
  maps: VariableMaps,
): Promise<Progress> {
  const file = await openSafetensors(join(out, fileNames.finetuneTensors));
  try {
    const saved = await savedState(out, file);
    if (saved.identity !== identity) throw madeOtherwise(out);
    for (const [name, count] of Object.entries(saved.taken ?? {})) taken.set(name, count);
    for (const [kind, map] of Object.entries(maps)) {
      for (const [name, v] of map) {
        const value = tensor(toFloat32(await file.read(`${kind}/${name}`)), v.shape);
        v.assign(value);
        value.dispose();
      }
    }
    return { step: saved.step ?? 0, lossSum: saved.lossSum, best: saved.best };
  } finally {
    await file.close();
  }
}
