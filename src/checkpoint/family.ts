import { UserError } from "../errors.js";
import { isFloat, toFloat32 } from "../tensor/dtype.js";
import { openCheckpoint, type Checkpoint } from "./folder.js";

/** A checkpoint seen under canonical names: `bert.` prefixes and old spellings are gone. */
export interface Member {
  /** "base", or the task of an expert. */
  readonly label: string;
  readonly checkpoint: Checkpoint;
  /** Canonical name → the name in the file. */
  readonly actual: ReadonlyMap<string, string>;
  /** Reads a weight as float32. @throws UserError where it is missing, not a float, NaN or infinite. */
  weights(name: string): Promise<{ shape: readonly number[]; values: Float32Array<ArrayBuffer> }>;
}

/** A base and the experts fine-tuned from it. */
export interface Family {
  readonly base: Member;
  readonly experts: readonly Member[];
  close(): Promise<void>;
}

/** Sees an open checkpoint under canonical names. @throws UserError where two names become one. */
export function member(label: string, checkpoint: Checkpoint, canonical: (name: string) => string): Member {
  const actual = new Map<string, string>();
  for (const name of checkpoint.names) {
    const twin = actual.get(canonical(name));
    if (twin !== undefined) throw new UserError(`${checkpoint.folder}: "${twin}" and "${name}" are two names of one tensor`);
    actual.set(canonical(name), name);
  }
  return {
    label, checkpoint, actual,
    async weights(name) {
      const stored = actual.get(name);
      if (stored === undefined) throw new UserError(`${checkpoint.folder} (${label}): there is no tensor "${name}"`);
      const tensor = await checkpoint.read(stored);
      if (!isFloat(tensor.dtype)) throw new UserError(`${checkpoint.folder} (${label}): "${stored}" is ${tensor.dtype}; a weight must be F32, F16 or BF16`);
      const values = toFloat32(tensor);
      const bad = values.findIndex((value) => !Number.isFinite(value));
      if (bad >= 0) throw new UserError(`${checkpoint.folder} (${label}): "${stored}" holds ${values[bad]} at entry ${bad}; the checkpoint is damaged or its training diverged`);
      return { shape: tensor.shape, values };
    },
  };
}

/** Opens one folder under canonical names. */
export async function openMember(label: string, folder: string, canonical: (name: string) => string): Promise<Member> {
  const checkpoint = await openCheckpoint(folder);
  try {
    return member(label, checkpoint, canonical);
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

/** Opens a base and its experts, in the order given. */
export async function openFamily(base: Member, experts: readonly { task: string; folder: string }[], canonical: (name: string) => string): Promise<Family> {
  const opened: Member[] = [];
  const close = async () => {
    for (const { checkpoint } of [base, ...opened]) await checkpoint.close();
  };
  try {
    for (const { task, folder } of experts) opened.push(await openMember(task, folder, canonical));
  } catch (error) {
    await close();
    throw error;
  }
  return { base, experts: opened, close };
}
