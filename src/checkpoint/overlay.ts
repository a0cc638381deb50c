import { UserError } from "../errors.js";
import { fromFloat32, type HostTensor } from "../tensor/dtype.js";
import type { Checkpoint } from "./folder.js";

/** A float32 tensor in host memory; the values are not copied. */
export const hostTensor = (values: Float32Array, shape: readonly number[] = [values.length]): HostTensor => ({
  dtype: "F32",
  shape,
  bytes: fromFloat32(values, "F32"),
});

/** Tensors in host memory, seen as a checkpoint: it has no files. */
export function inMemory(
  folder: string,
  config: Checkpoint["config"],
  tensors: ReadonlyMap<string, HostTensor>,
): Checkpoint {
  const of = (name: string): HostTensor => {
    const found = tensors.get(name);
    if (!found) throw new UserError(`${folder}: there is no tensor "${name}"`);
    return found;
  };
  return {
    folder,
    config,
    files: [],
    names: [...tensors.keys()],
    entry(name) {
      const found = tensors.get(name);
      return found && { dtype: found.dtype, shape: found.shape, start: 0, end: found.bytes.length };
    },
    // In no file: `path` is only ever compared.
    ref: (name) => ({ path: `${folder}#${name}`, start: 0, dtype: of(name).dtype }),
    read: async (name) => of(name),
    readRange: async (name, start, length) => new Uint8Array(of(name).bytes.slice(start, start + length)),
    close: async () => {},
  };
}

/** A checkpoint with some tensors of another in front of its own: closing it closes its own files alone. */
export function overlaid(
  checkpoint: Checkpoint,
  other: Checkpoint,
  names: readonly string[] = other.names,
): Checkpoint {
  const lent = new Set(names);
  const of = (name: string): Checkpoint => (lent.has(name) ? other : checkpoint);
  return {
    ...checkpoint,
    names: [...checkpoint.names.filter((name) => !lent.has(name)), ...names],
    entry: (name) => of(name).entry(name),
    ref: (name) => of(name).ref(name),
    read: (name) => of(name).read(name),
    readRange: (name, start, length) => of(name).readRange(name, start, length),
  };
}
