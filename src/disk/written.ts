/** A look at what a plan has written. */
import { open, type FileHandle } from "node:fs/promises";
import { at } from "../at.js";
import { readExactly, type Ref } from "../checkpoint/safetensors.js";
import { dtypeBytes, isFloat, toFloat32 } from "../tensor/dtype.js";
import { checkWritten, type Range, type WrittenTensor } from "../verify/entries.js";
import { methodWeights, type SumWeights } from "../verify/sums.js";
import type { MergePlan, PlannedTensor } from "./plan.js";

/** Whether entries lie in the file one by one: not what an adapter or a quantised weight makes of others. */
const isPlain = ({ dtype, packed, moved, adapted, constant, values }: Ref): boolean =>
  isFloat(dtype) && !packed && !moved && !adapted && constant === undefined && !values;

/** The models of a tensor with what they weigh in it; undefined where no sum says it. */
function weightedRefs(
  method: string,
  tensor: PlannedTensor,
): readonly (readonly [Ref, number])[] | undefined {
  const { copy, base, inputs, values } = tensor;
  if (copy) return [[copy, 1]];
  const weights: SumWeights | undefined = methodWeights(method, values, inputs.length);
  if (!weights) return undefined;
  const parts = inputs.map((ref, i) => [ref, at(weights.inputs, i)] as const);
  if (base) return [[base, weights.base], ...parts];
  return parts;
}

/**
 * Looks at the files that a plan was written to.
 * @param began by performance.now()
 * @throws UserError where they are not what the plan says
 */
export async function checkPlanned(
  paths: readonly string[],
  plan: Pick<MergePlan, "method" | "tensors">,
  began: number,
): Promise<void> {
  const handles = new Map<string, Promise<FileHandle>>();
  const entries = async ({ path, start, dtype }: Ref, [from, to]: Range): Promise<Float32Array> => {
    const handle = handles.get(path) ?? open(path, "r");
    handles.set(path, handle);
    const size = dtypeBytes[dtype];
    const bytes = await readExactly(await handle, path, start + from * size, (to - from) * size);
    return toFloat32({ dtype, shape: [], bytes });
  };
  const written = plan.tensors.map((tensor): WrittenTensor => {
    const parts = weightedRefs(plan.method, tensor) ?? [];
    const terms = parts.map(([ref, factor]) => ({ factor, read: (range: Range) => entries(ref, range) }));
    if (!parts.every(([ref]) => isPlain(ref))) return tensor;
    return { name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, terms };
  });
  try {
    await checkWritten(paths, written, began);
  } finally {
    for (const handle of handles.values()) await (await handle).close();
  }
}
