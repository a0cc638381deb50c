import { UserError } from "../errors.js";
import { dtypeBytes, isFloat, toFloat32, type HostTensor } from "../tensor/dtype.js";
import { adaptedCheckpoint, type AdaptedCheckpoint } from "./adapted.js";
import { isAdapter, openAdapter } from "./adapter.js";
import { openCheckpoint, type Checkpoint } from "./folder.js";
import { overlaid } from "./overlay.js";

/** A checkpoint seen under canonical names: `bert.` prefixes and old spellings are gone. */
export interface Member {
  /** "base", or the task of an expert. */
  readonly label: string;
  readonly checkpoint: Checkpoint;
  /** Canonical name → the name in the file. */
  readonly actual: ReadonlyMap<string, string>;
  /** Reads a weight as float32. @throws UserError where it is missing, not a float, NaN or infinite. */
  weights(
    name: string,
  ): Promise<{ shape: readonly number[]; values: Float32Array<ArrayBuffer>; stored: HostTensor }>;
  /**
   * Reads some rows of a weight as float32, one run after the other; who has read it whole before
   * (`weights`) knows it to be sound.
   * @param width entries a row
   */
  rows(name: string, runs: readonly Run[], width: number): Promise<Float32Array>;
}

/** Rows `from` to before `to`. */
export type Run = readonly [from: number, to: number];

export const rowCount = (runs: readonly Run[]): number =>
  runs.reduce((sum, [from, to]) => sum + to - from, 0);

/** Rows by number (each once, rising) as runs. */
export function runsOf(ids: Int32Array): Run[] {
  const runs: [number, number][] = [];
  for (const id of ids) {
    const last = runs.at(-1);
    if (last?.[1] === id) last[1]++;
    else runs.push([id, id + 1]);
  }
  return runs;
}

/** Bytes between two runs that are read along with them: cheaper than another call. */
const bridged = 32 * 1024;

/** Reads runs of a stored tensor; runs that lie close together are read in one piece. */
async function readRuns(
  checkpoint: Checkpoint,
  stored: string,
  runs: readonly Run[],
  rowBytes: number,
): Promise<Uint8Array> {
  if (runs.length === 1)
    return checkpoint.readRange(stored, runs[0]![0] * rowBytes, (runs[0]![1] - runs[0]![0]) * rowBytes);
  const pieces: Run[][] = [];
  for (const run of runs) {
    const last = pieces.at(-1);
    if (last && (run[0] - last.at(-1)![1]) * rowBytes <= bridged) last.push(run);
    else pieces.push([run]);
  }
  const out = new Uint8Array(rowCount(runs) * rowBytes);
  let at = 0;
  const places = pieces.map((piece) => {
    const start = at;
    at += rowCount(piece) * rowBytes;
    return start;
  });
  await Promise.all(
    pieces.map(async (piece, p) => {
      const first = piece[0]![0];
      const bytes = await checkpoint.readRange(
        stored,
        first * rowBytes,
        (piece.at(-1)![1] - first) * rowBytes,
      );
      let to = places[p]!;
      for (const [start, end] of piece) {
        out.set(bytes.subarray((start - first) * rowBytes, (end - first) * rowBytes), to);
        to += (end - start) * rowBytes;
      }
    }),
  );
  return out;
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
    if (twin !== undefined)
      throw new UserError(`${checkpoint.folder}: "${twin}" and "${name}" are two names of one tensor`);
    actual.set(canonical(name), name);
  }
  const storedName = (name: string): string => {
    const stored = actual.get(name);
    if (stored === undefined)
      throw new UserError(`${checkpoint.folder} (${label}): there is no tensor "${name}"`);
    return stored;
  };
  return {
    label,
    checkpoint,
    actual,
    async rows(name, runs, width) {
      const stored = storedName(name);
      const { dtype } = checkpoint.entry(stored)!;
      return toFloat32({
        dtype,
        shape: [],
        bytes: await readRuns(checkpoint, stored, runs, width * dtypeBytes[dtype]),
      });
    },
    async weights(name) {
      const stored = storedName(name);
      const tensor = await checkpoint.read(stored);
      if (!isFloat(tensor.dtype))
        throw new UserError(
          `${checkpoint.folder} (${label}): "${stored}" is ${tensor.dtype}; a weight must be F32, F16 or BF16`,
        );
      const values = toFloat32(tensor);
      const bad = values.findIndex((value) => !Number.isFinite(value));
      if (bad >= 0)
        throw new UserError(
          `${checkpoint.folder} (${label}): "${stored}" holds ${values[bad]} at entry ${bad}; the ` +
            "checkpoint is damaged or its training diverged",
        );
      return { shape: tensor.shape, values, stored: tensor };
    },
  };
}

/** Opens an expert: a model, or an adapter of the base, which is seen as a model of its own. */
export async function openExpert(
  label: string,
  folder: string,
  base: Member,
  canonical: (name: string) => string,
): Promise<Member> {
  if (!isAdapter(folder)) return openMember(label, folder, canonical);
  const adapter = await openAdapter(folder);
  try {
    return member(label, await adaptedCheckpoint(base.checkpoint, adapter, canonical), canonical);
  } catch (error) {
    await adapter.file.close();
    throw error;
  }
}

/** A member that has the base's tensors where it lacks some of these. */
export function inheriting(
  one: Member,
  base: Member,
  names: readonly string[],
  canonical: (name: string) => string,
): Member {
  const lent = names
    .filter((name) => !one.actual.has(name) && base.actual.has(name))
    .map((name) => base.actual.get(name)!);
  return lent.length === 0
    ? one
    : member(one.label, overlaid(one.checkpoint, base.checkpoint, lent), canonical);
}

/** The adapter that a member is, where it is one. */
export const adapterOf = ({ checkpoint }: Member): AdaptedCheckpoint | undefined =>
  "adapter" in checkpoint ? (checkpoint as AdaptedCheckpoint) : undefined;

/** Opens one folder under canonical names. */
export async function openMember(
  label: string,
  folder: string,
  canonical: (name: string) => string,
): Promise<Member> {
  const checkpoint = await openCheckpoint(folder);
  try {
    return member(label, checkpoint, canonical);
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

/** Opens a base and its experts, in the order given. */
export async function openFamily(
  base: Member,
  experts: readonly { task: string; folder: string }[],
  canonical: (name: string) => string,
): Promise<Family> {
  const opened: Member[] = [];
  const close = async () => {
    for (const { checkpoint } of [base, ...opened]) await checkpoint.close();
  };
  try {
    for (const { task, folder } of experts) opened.push(await openExpert(task, folder, base, canonical));
  } catch (error) {
    await close();
    throw error;
  }
  return { base, experts: opened, close };
}
