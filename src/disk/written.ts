/** A look at what a plan has written. */
import { open, type FileHandle } from "node:fs/promises";
import { at } from "../at.js";
import { readExactly, type Ref } from "../checkpoint/safetensors.js";
import { dtypeBytes, elements, isFloat, toFloat32 } from "../tensor/dtype.js";
import { checkWritten, type Range, type WrittenTensor } from "../verify/entries.js";
import { reworkOf } from "../verify/methods.js";
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

/** Reads entries of a ref. */
type ReadRef = (ref: Ref, range: Range) => Promise<Float32Array>;

/** How a tensor's entries are worked out from whole ones; undefined where they are not, or its models are packed. */
function expectedOf(
  { method, labels: all }: Pick<MergePlan, "method" | "labels">,
  tensor: PlannedTensor,
  entries: ReadRef,
): WrittenTensor["expected"] {
  const { name, shape, base, inputs, values, labels = all, copy } = tensor;
  const rework = reworkOf(method, values, inputs.length);
  // The authors' TIES looks at all tensors together.
  if (!rework || copy || values["variant"] === "original") return undefined;
  if (![...inputs, base].every((ref) => !ref || isPlain(ref))) return undefined;
  const whole = (ref: Ref) => entries(ref, [0, elements(shape)]);
  const read = async () => ({
    name,
    base: base && (await whole(base)),
    inputs: await Promise.all(inputs.map(whole)),
  });
  return async () => (await rework(values, { labels, names: [name], read }))(await read());
}

/** What a plan says of each tensor of the result. Files are opened as they are read, and closed by `close`. */
export function plannedTensors(plan: Pick<MergePlan, "method" | "labels" | "tensors">): {
  readonly tensors: readonly WrittenTensor[];
  close(): Promise<void>;
} {
  const handles = new Map<string, Promise<FileHandle>>();
  const entries: ReadRef = async ({ path, start, dtype }, [from, to]) => {
    const handle = handles.get(path) ?? open(path, "r");
    handles.set(path, handle);
    const size = dtypeBytes[dtype];
    const bytes = await readExactly(await handle, path, start + from * size, (to - from) * size);
    return toFloat32({ dtype, shape: [], bytes });
  };
  return {
    tensors: plan.tensors.map((tensor): WrittenTensor => {
      const { name, dtype, shape, copy, base, inputs } = tensor;
      const [first] = [copy ?? base ?? inputs[0]].filter((ref) => ref && isPlain(ref));
      const before = first && ((range: Range) => entries(first, range));
      const parts = weightedRefs(plan.method, tensor);
      const expected = expectedOf(plan, tensor, entries);
      if (expected) return { name, dtype, shape, before, expected };
      if (!parts?.every(([ref]) => isPlain(ref))) return { name, dtype, shape, before };
      const terms = parts.map(([ref, factor]) => ({ factor, read: (range: Range) => entries(ref, range) }));
      return { name, dtype, shape, before, terms };
    }),
    async close() {
      for (const handle of handles.values()) await (await handle).close();
    },
  };
}

/**
 * Looks at the files that a plan was written to.
 * @param began by performance.now()
 * @throws UserError where they are not what the plan says
 */
export async function checkPlanned(
  paths: readonly string[],
  plan: Pick<MergePlan, "method" | "labels" | "tensors">,
  began: number,
): Promise<void> {
  const { tensors, close } = plannedTensors(plan);
  try {
    await checkWritten(paths, tensors, began);
  } finally {
    await close();
  }
}
