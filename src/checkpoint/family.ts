import { UserError } from "../errors.js";
import { entryOf, openCheckpoint, type Checkpoint, isAdapter } from "./folder.js";
import type { TensorEntry } from "./safetensors.js";
import { dtypeBytes, isFloat, toFloat32, type HostTensor } from "../tensor/dtype.js";
import { adaptedCheckpoint, type AdaptedCheckpoint } from "./adapted.js";
import { openAdapter } from "./adapter.js";
import { dequantised } from "./dequantise.js";
import { unwrapped } from "./names.js";
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
  rows(name: string, runs: readonly RowRun[], width: number): Promise<Float32Array>;
}

/** Rows `from` to before `to`. */
export type RowRun = readonly [from: number, to: number];

export const rowCount = (runs: readonly RowRun[]): number =>
  runs.reduce((sum, [from, to]) => sum + to - from, 0);

/** Rows by number (each once, rising) as runs. */
export function runsOf(ids: Int32Array): RowRun[] {
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

/** Runs that are read in one group of the file. */
interface RunGroup {
  readonly runs: RowRun[];
  /** The group's rows. */
  readonly from: number;
  to: number;
  /** Where its runs go, in rows. */
  readonly target: number;
}

/** Puts runs that lie close together into one group. */
function groupRuns(runs: readonly RowRun[], rowBytes: number): RunGroup[] {
  const groups: RunGroup[] = [];
  let target = 0;
  for (const run of runs) {
    const [from, to] = run;
    const last = groups.at(-1);
    if (last && (from - last.to) * rowBytes <= bridged) {
      last.runs.push(run);
      last.to = to;
    } else groups.push({ runs: [run], from, to, target });
    target += to - from;
  }
  return groups;
}

/** Reads runs of a stored tensor. */
async function readRuns(
  checkpoint: Checkpoint,
  stored: string,
  runs: readonly RowRun[],
  rowBytes: number,
): Promise<Uint8Array> {
  const read = (from: number, to: number) =>
    checkpoint.readRange(stored, from * rowBytes, (to - from) * rowBytes);
  const [first, ...others] = runs;
  if (first && others.length === 0) return read(...first);
  const out = new Uint8Array(rowCount(runs) * rowBytes);
  await Promise.all(
    groupRuns(runs, rowBytes).map(async (group) => {
      const bytes = await read(group.from, group.to);
      let position = group.target * rowBytes;
      for (const [from, to] of group.runs) {
        const rows = bytes.subarray((from - group.from) * rowBytes, (to - group.from) * rowBytes);
        out.set(rows, position);
        position += rows.length;
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

/**
 * Sees an open checkpoint under canonical names.
 * @param aliases canonical names that it has beside those, each of a stored tensor
 * @throws UserError where two names become one
 */
export function member(
  label: string,
  checkpoint: Checkpoint,
  canonical: (name: string) => string,
  aliases: ReadonlyMap<string, string> = new Map(),
): Member {
  const actual = new Map<string, string>(aliases);
  for (const stored of checkpoint.names) {
    const name = canonical(stored);
    const twin = actual.get(name);
    if (twin !== undefined)
      throw new UserError(`${checkpoint.folder}: "${twin}" and "${stored}" are two names of one tensor`);
    actual.set(name, stored);
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
      const { dtype } = entryOf(checkpoint, stored);
      const bytes = await readRuns(checkpoint, stored, runs, width * dtypeBytes[dtype]);
      return toFloat32({ dtype, shape: [], bytes });
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

/** How folders are opened. */
export interface OpenOptions {
  /** Quantised weights are read as the numbers that they stand for; else they are refused. */
  readonly dequantise?: boolean | undefined;
}

/** Opens an expert: a model, or an adapter of the base, which is seen as a model of its own. */
export async function openExpert(
  { label, folder }: { readonly label: string; readonly folder: string },
  base: Member,
  canonical: (name: string) => string,
  opening: OpenOptions = {},
): Promise<Member> {
  if (!isAdapter(folder)) return openMember(label, folder, canonical, opening);
  const adapter = await openAdapter(folder);
  try {
    return member(label, await adaptedCheckpoint(base.checkpoint, adapter), canonical);
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
    .filter((name) => !one.actual.has(name))
    .map((name) => base.actual.get(name))
    .filter((stored) => stored !== undefined);
  if (lent.length === 0) return one;
  return member(one.label, overlaid(one.checkpoint, base.checkpoint, lent), canonical);
}

const isAdapted = (checkpoint: Checkpoint): checkpoint is AdaptedCheckpoint => "adapter" in checkpoint;

/** The adapter that a member is, where it is one. */
export function adapterOf({ checkpoint }: Member): AdaptedCheckpoint | undefined {
  if (isAdapted(checkpoint)) return checkpoint;
  return undefined;
}

/** Opens one folder under canonical names. */
export async function openMember(
  label: string,
  folder: string,
  canonical: (name: string) => string,
  { dequantise = false }: OpenOptions = {},
): Promise<Member> {
  const opened = await openCheckpoint(folder, { quantised: dequantise });
  try {
    const checkpoint = dequantise ? await dequantised(opened) : opened;
    const plain = unwrapped(checkpoint);
    return member(label, checkpoint, (name) => canonical(plain(name)));
  } catch (error) {
    await opened.close();
    throw error;
  }
}

/** Opens a base and its experts, in the order given. */
export async function openFamily(
  base: Member,
  experts: readonly { task: string; folder: string }[],
  canonical: (name: string) => string,
  opening: OpenOptions = {},
): Promise<Family> {
  const opened: Member[] = [];
  const close = async () => {
    for (const { checkpoint } of [base, ...opened]) await checkpoint.close();
  };
  try {
    for (const { task, folder } of experts)
      opened.push(await openExpert({ label: task, folder }, base, canonical, opening));
  } catch (error) {
    await close();
    throw error;
  }
  return { base, experts: opened, close };
}

/**
 * The stored name of one of a model's tensors, under its family's name.
 * @throws UserError where the model has none of that name
 */
export function storedName({ actual, checkpoint: { folder }, label }: Member, name: string): string {
  const stored = actual.get(name);
  if (stored === undefined) throw new UserError(`${folder} (${label}): there is no tensor "${name}"`);
  return stored;
}

/** Name and header of one of a model's tensors, under its family's name. @throws UserError where it has none */
export function storedEntry(member: Member, name: string): TensorEntry & { readonly stored: string } {
  const stored = storedName(member, name);
  return { stored, ...entryOf(member.checkpoint, stored) };
}
