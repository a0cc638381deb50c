/** Heads that adapters hold and their base has not, merged beside their products: PEFT asks for them. */
import { join } from "node:path";
import { at } from "../at.js";
import type { AdaptedCheckpoint } from "../checkpoint/adapted.js";
import { member, type Member } from "../checkpoint/family.js";
import { entryOf } from "../checkpoint/folder.js";
import { refuseWorthless } from "../checkpoint/numbers.js";
import { openSafetensors } from "../checkpoint/safetensors.js";
import type { TensorSource } from "../checkpoint/write.js";
import { compileMerge } from "../disk/compile.js";
import { mergeOnDisk, type DiskOptions } from "../disk/merge.js";
import { fileNames } from "../folder/files.js";
import { openScratch, removeScratch } from "../folder/output.js";
import { fromFloat32, toFloat32, type FloatDType } from "../tensor/dtype.js";
import type { MethodUse } from "./lora.js";

/** Heads that all adapters have in one shape, where a method needs no base to merge them; else none. */
export function headsAlike(
  { method }: Pick<MethodUse, "method">,
  adapters: readonly AdaptedCheckpoint[],
): string[] {
  const first = at(adapters, 0);
  if (!method.baseless || first.adapter.kind !== "lora") return [];
  const shapes = adapters.map((one) =>
    one.heads
      .map((name) => `${name} ${entryOf(one, name).shape.join()}`)
      .sort()
      .join(),
  );
  if (new Set(shapes).size > 1) return [];
  return [...first.heads];
}

/** Only some tensors of a model. */
const part = ({ label, checkpoint }: Member, names: readonly string[]): Member =>
  member(label, { ...checkpoint, names }, (name) => name);

/** Merges heads with the method, as models of nothing else. Held: the heads. @returns them as PEFT names them */
export async function mergeHeads(
  out: string,
  names: readonly string[],
  {
    method,
    values,
    inputs,
    dtype,
  }: MethodUse & { readonly inputs: readonly Member[]; readonly dtype: FloatDType },
  disk: DiskOptions,
): Promise<TensorSource[]> {
  if (names.length === 0) return [];
  const models = inputs.map((one) => part(one, names));
  const { plan } = compileMerge(
    { base: undefined, inputs: models },
    { method: method.name, values, dtype: "F32" },
  );
  const folder = await openScratch(out, fileNames.products);
  try {
    await mergeOnDisk(plan, folder, { ...disk, shardBytes: Infinity });
    const file = await openSafetensors(join(folder, "model.safetensors"));
    try {
      const sources: TensorSource[] = [];
      for (const name of names) {
        const tensor = await file.read(name);
        const values = toFloat32(tensor);
        const bytes = async () => {
          refuseWorthless(name, dtype, values);
          return fromFloat32(values, dtype);
        };
        sources.push({ name: `base_model.model.${name}`, dtype, shape: tensor.shape, bytes });
      }
      return sources;
    } finally {
      await file.close();
    }
  } finally {
    await removeScratch(folder);
  }
}
