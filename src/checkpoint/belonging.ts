/**
 * Whether models belong together. By their configs: of one architecture, or refused. By a sample of the task vectors
 * (expert − base): numbers cannot prove that experts were tuned from their base, so what stands out is told, and
 * refused where the user wants that.
 */
import { existsSync, realpathSync } from "node:fs";
import { basename, resolve } from "node:path";
import { UserError } from "../errors.js";
import { adapterOf, type Member } from "./family.js";
import { at, f32, f64 } from "../at.js";
import { dot, isFloat } from "../tensor/dtype.js";
import { isOptional } from "./names.js";
import { checkStructure } from "./structure.js";

/** Matrices that are looked at, spread evenly over the model, and entries of each: a quarter of a megabyte a model. */
const sampledMatrices = 8;
const sampledEntries = 8192;

/** Of another base a task vector is as large as the weights; fine-tuning changes them by a few shareText. */
const largeShare = 0.5;

/** So many times as large as the median of the other experts' stands out. */
const outlier = 10;

/** Two task vectors with so small an angle are one. */
const sameCosine = 0.99999;

/** Names of matrices that all models have in one shape, and rows of each that are read. */
function sampleOf(base: Member, experts: readonly Member[]): { name: string; rows: number; width: number }[] {
  const entryIn = ({ actual, checkpoint }: Member, name: string) => {
    const stored = actual.get(name);
    return stored === undefined ? undefined : checkpoint.entry(stored);
  };
  const matrices = [...base.actual.keys()].flatMap((name) => {
    const entry = entryIn(base, name);
    const [rows, width] = entry?.shape ?? [];
    if (!entry || rows === undefined || width === undefined || entry.shape.length !== 2) return [];
    const fits = (one: Member): boolean => {
      const own = entryIn(one, name);
      return own !== undefined && isFloat(own.dtype) && own.shape.join() === entry.shape.join();
    };
    if (isOptional(name) || rows * width === 0 || ![base, ...experts].every(fits)) return [];
    return [{ name, rows: Math.min(rows, Math.ceil(sampledEntries / width)), width }];
  });
  const step = Math.max(1, matrices.length / sampledMatrices);
  const count = Math.min(matrices.length, sampledMatrices);
  return Array.from({ length: count }, (_, i) => at(matrices, Math.floor(i * step)));
}

/** Dot products of some vectors, and the square of what they are taken from. */
interface Products {
  /** ⟨τ_i, τ_j⟩ */
  readonly dots: readonly Float64Array[];
  /** ‖base‖² */
  base: number;
  /** Which of them are adapters: what these add is theirs, whatever base it is added to, and may be large. */
  readonly adapters?: ReadonlySet<number> | undefined;
}

async function productsOf(base: Member, experts: readonly Member[]): Promise<Products> {
  const found: Products = { dots: experts.map(() => new Float64Array(experts.length)), base: 0 };
  for (const { name, rows, width } of sampleOf(base, experts)) {
    const own = await base.rows(name, [[0, rows]], width);
    for (const x of own) found.base += x * x;
    const vectors: Float32Array[] = [];
    for (const expert of experts) {
      const values = Float32Array.from(await expert.rows(name, [[0, rows]], width));
      vectors.push(values.map((x, i) => x - f32(own, i)));
    }
    for (const [i, a] of vectors.entries())
      for (const [j, b] of vectors.slice(0, i + 1).entries()) {
        const row = at(found.dots, i);
        row[j] = f64(row, j) + dot(a, b);
      }
  }
  return found;
}

const shareText = (share: number): string => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

/** What stands out of experts, by the sizes and angles of their task vectors; a line each. */
export function standingOut(labels: readonly string[], { dots, base, adapters }: Products): string[] {
  if (base === 0) return [];
  const squares = labels.map((_, i) => f64(at(dots, i), i));
  const shares = squares.map((square) => Math.sqrt(square / base));
  const lines: string[] = [];
  for (const [i, label] of labels.entries()) {
    const share = at(shares, i);
    const others = shares.filter((_, j) => j !== i).sort((a, b) => a - b);
    const median = others.length ? at(others, Math.floor(others.length / 2)) : 0;
    if (share === 0) lines.push(`${label} is the base itself, as far as a sample of its weights tells`);
    else if ((share > largeShare && !adapters?.has(i)) || (median > 0 && share > outlier * median))
      lines.push(
        `${label}: its task vector is ${shareText(share)} as large as the base's weights` +
          `${median > 0 ? ` (the others': ${shareText(median)})` : ""}; was it tuned from this base?`,
      );
    for (const [j, other] of labels.slice(0, i).entries()) {
      const cosine = f64(at(dots, i), j) / Math.sqrt(at(squares, i) * at(squares, j));
      const isSameSize = Math.abs(share - at(shares, j)) <= 1e-6 * share;
      if (cosine > sameCosine && isSameSize)
        lines.push(`${label} and ${other} are one model, as far as a sample tells`);
    }
  }
  return lines;
}

/**
 * Looks at a sample of the experts' weights. Held: that sample, a quarter of a megabyte a model.
 * @param strict refuses what stands out
 * @returns what stands out, a line each
 */
async function checkBelonging(base: Member, experts: readonly Member[], strict: boolean): Promise<string[]> {
  const adapters = new Set([...experts.keys()].filter((i) => adapterOf(at(experts, i)) !== undefined));
  const lines = standingOut(
    experts.map(({ label, checkpoint }) => `${checkpoint.folder} (${label})`),
    { ...(await productsOf(base, experts)), adapters },
  );
  if (strict && lines.length) throw new UserError(`--strict: ${lines.join("; ")}`);
  return lines;
}

/** What is let through, and what is refused though it could be let through. */
export interface Rules {
  readonly allowMismatch?: boolean | undefined;
  readonly strict?: boolean | undefined;
  /** Layers are stacked anew: how many each model has is its own affair. */
  readonly sliced?: boolean | undefined;
  /** The user named each adapter together with the model that it is merged on. */
  readonly namedPairs?: boolean | undefined;
}

/** Endings of names that say how a model is packed, and not which it is; "Meta-" before Llama is as good as nothing. */
const packaging =
  /-(unsloth|bnb-4bit|bnb-8bit|4bit|8bit|int4|int8|nf4|fp8(-dynamic)?|gptq|awq|hf|bf16|fp16)$/;

/** A model's name as far as it tells models apart: "unsloth/Llama-3.2-1B-bnb-4bit" → "llama-3-2-1b". */
export function plainModelName(id: string): string {
  const parts = id.split(/[\\/]/).filter(Boolean);
  // In the hub's cache the folder is a commit's.
  const [cached] = parts.flatMap((part) => /^models--.+?--(.+)$/.exec(part)?.[1] ?? []);
  let name = (cached ?? parts.at(-1) ?? "")
    .toLowerCase()
    .replace(/[._]/g, "-")
    .replace(/^meta-/, "");
  while (packaging.test(name)) name = name.replace(packaging, "");
  return name;
}

/** What a base is called: its folder, its id in the hub's cache, and what its config says it was saved from. */
function namesOfBase(folder: string, config: Readonly<Record<string, unknown>>): string[] {
  const { _name_or_path: savedFrom } = config;
  const parts = [...new Set([resolve(folder), realpathSync(folder)])].flatMap((path) => path.split(/[\\/]/));
  const cached = parts.flatMap((part) => /^models--.+?--(.+)$/.exec(part)?.[1] ?? []);
  const named = [basename(resolve(folder)), basename(realpathSync(folder)), ...cached, savedFrom];
  return named.filter((name) => typeof name === "string").map(plainModelName);
}

/** An id on the hub: "org/name", or the name alone. */
const isHubId = (name: string): boolean => {
  const [owner = "", model] = name.split("/");
  const isPath =
    model !== undefined &&
    (existsSync(owner) || /^(models?|checkpoints?|outputs?|runs|input|results)$/.test(owner));
  return !isPath && /^[\w-][\w.-]*(\/[\w-][\w.-]*)?$/.test(name);
};

/** Whether more is known of a base than what its folder is called. */
const isNamed = (folder: string, { _name_or_path: savedFrom }: Readonly<Record<string, unknown>>): boolean =>
  typeof savedFrom === "string" || /models--/.test(`${resolve(folder)} ${realpathSync(folder)}`);

/**
 * Checks, by name, that adapters were trained on the base that they are merged on: their own files do not tell, where
 * the sizes are the same. A path is told alone, because folders are moved and renamed.
 * @throws UserError where an id of the hub is another model's
 */
function checkAdapterBases(
  members: readonly Member[],
  { allowMismatch, namedPairs, strict }: Rules,
): string[] {
  const lines: string[] = [];
  for (const one of members) {
    const { label, checkpoint } = one;
    const own = adapterOf(one)?.adapter.config["base_model_name_or_path"];
    if (typeof own !== "string" || own === "" || checkpoint.home === undefined) continue;
    if (namesOfBase(checkpoint.home, checkpoint.config).includes(plainModelName(own))) continue;
    const { folder, home } = checkpoint;
    const line = `${folder} (${label}): it says that it was trained on ${own}, and is merged on ${home}`;
    const mayPass = allowMismatch || namedPairs;
    if (isHubId(own) && isNamed(home, checkpoint.config) && !mayPass)
      throw new UserError(`${line}; give that base, or if they are the same model: --allow-mismatch`);
    if (strict) throw new UserError(`--strict: ${line}`);
    lines.push(line);
  }
  return lines;
}

/** That weights were read as the numbers that they stand for, a line a model. */
function dequantisedLines(members: readonly Member[]): string[] {
  const found = members.filter(({ checkpoint }) => checkpoint.dequantised !== undefined);
  const lines = found.map(
    ({ checkpoint: { folder, home = folder, dequantised } }) =>
      `${home}: its weights were dequantised (${dequantised})`,
  );
  return [...new Set(lines)];
}

/**
 * Checks that models belong together: configs, and where there is a base, a sample of the others' task vectors.
 * @param models.first the one that the configs are held against
 * @returns what was let through or stands out, a line each
 */
export async function checkTogether(
  models: { readonly first: Member; readonly members: readonly Member[]; readonly base?: Member | undefined },
  { allowMismatch = false, strict = false, sliced = false, namedPairs }: Rules,
): Promise<string[]> {
  const { first, members, base } = models;
  const lines = [
    ...dequantisedLines([first, ...members]),
    ...checkStructure(first, members, { allow: allowMismatch, sliced }),
    ...checkAdapterBases(members, { allowMismatch, namedPairs, strict }),
  ];
  if (!base) return lines;
  const experts = members.filter((one) => one !== base);
  return [...lines, ...(await checkBelonging(base, experts, strict))];
}
