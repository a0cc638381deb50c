import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { z } from "zod";
import { writeText } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import type { Table } from "../merge/table.js";
import type { TrainRecord, TrainState } from "../train/loop.js";
import { fileNames, readLogLine, placementIdentity, stateFile } from "./files.js";

const plainTable = ({ rows, columns, values }: Table) => ({
  rows,
  columns,
  values: Array.from(values),
});
const toTable = (plain: ReturnType<typeof plainTable>): Table => ({
  ...plain,
  values: Float64Array.from(plain.values),
});

type SavedState = z.infer<typeof stateFile.schema>;

/** What a table's rows and columns are called. */
export interface TableLabels {
  readonly layers: readonly string[];
  readonly experts: readonly string[];
  /** Of the whole training. */
  readonly steps?: number | undefined;
}

/** JSON keeps every digit of a double, so a state that is read is the state that was written. */
export async function saveState(
  out: string,
  identity: Readonly<Record<string, unknown>>,
  state: TrainState,
  labels?: TableLabels,
): Promise<void> {
  const {
    raw,
    mean,
    moments: { first, second, step },
    best,
  } = state;
  await stateFile.write(out, {
    identity,
    raw: plainTable(raw),
    ...(mean && { mean: plainTable(mean) }),
    moments: { first: Array.from(first), second: Array.from(second), step },
    ...(best && { best: { ...best, raw: plainTable(best.raw) } }),
    ...(labels && { labels: { ...labels, layers: [...labels.layers], experts: [...labels.experts] } }),
  });
}

/** Where the run that left a state had its task vectors; undefined where there is none that says. */
export async function placedIn(out: string): Promise<z.infer<typeof placementIdentity> | undefined> {
  const saved = await stateFile.readIfSound(out);
  return placementIdentity.safeParse(saved?.identity).data;
}

/** @throws UserError where a state's lists are not of its table's size: it was changed or cut */
function checkSizes({ raw, mean, moments, best }: SavedState, path: string): void {
  const size = raw.rows * raw.columns;
  const tables = [raw, mean ?? raw, best?.raw ?? raw];
  const lists = [...tables.map(({ values }) => values), moments.first, moments.second];
  const isWhole = (step: number): boolean => Number.isInteger(step) && step >= 0;
  const isSound =
    lists.every(({ length }) => length === size) && isWhole(moments.step) && isWhole(best?.step ?? 0);
  const areAlike = tables.every(({ rows }) => rows === raw.rows);
  if (!isSound || !areAlike || moments.second.some((x) => x < 0))
    throw new UserError(`${path}: it is damaged: its lists do not fit its table; start without --resume`);
}

/**
 * Reads the state a stopped run left.
 * @param identity what the state must have been made with: settings, inputs' hashes
 * @throws UserError where there is none, or where it belongs to another run, naming what differs
 */
export async function loadState(
  out: string,
  identity: Readonly<Record<string, unknown>>,
): Promise<TrainState> {
  const path = stateFile.in(out);
  const found = await stateFile.read(out);
  if (!found)
    throw new UserError(`--resume: ${out} holds no ${stateFile.name}; start the run without --resume`);
  const {
    raw,
    mean,
    moments: { first, second, step },
    best,
    identity: saved,
  } = found;
  const differing = [...new Set([...Object.keys(identity), ...Object.keys(saved)])].filter(
    (key) => JSON.stringify(identity[key]) !== JSON.stringify(saved[key]),
  );
  if (differing.length)
    throw new UserError(
      `--resume: ${path} was made with another ${differing.join(", ")}; use the same, or start without --resume`,
    );
  checkSizes(found, path);
  return {
    raw: toTable(raw),
    ...(mean && { mean: toTable(mean) }),
    moments: { first: Float64Array.from(first), second: Float64Array.from(second), step },
    ...(best && { best: { ...best, raw: toTable(best.raw) } }),
  };
}

/**
 * training.jsonl: one line a step, up to the step that the state stands at. It is rewritten with each save, so that
 * file and state always belong together.
 */
export async function openLog(
  out: string,
  uptoStep: number,
): Promise<{ add(record: TrainRecord): void; save(): Promise<void> }> {
  const path = join(out, fileNames.trainingLog);
  const lines: string[] = [];
  // At step 0 nothing was taken over: the first look at the validation examples is recorded again.
  if (uptoStep > 0 && existsSync(path)) {
    for (const line of (await readFile(path, "utf8")).split("\n").filter(Boolean))
      if (readLogLine(line, path).step <= uptoStep) lines.push(line);
  }
  return {
    add: (record) => void lines.push(JSON.stringify(record)),
    save: () => writeText(path, lines.map((line) => `${line}\n`).join("")),
  };
}
