/** Weights in few bits that can be read: FP8 and bitsandbytes, where their codes and their scales lie. */
import { z } from "zod";
import { at } from "../at.js";
import { UserError } from "../errors.js";
import { isFloat, elements, toFloat32, type FloatDType } from "../tensor/dtype.js";
import { byteTable, scaleCount, type CodeLayout } from "../tensor/unpack.js";
import { isRecord } from "./files.js";
import { entryOf, type Checkpoint } from "./folder.js";
import { methodIn } from "./quantised.js";
import type { MatrixRef, PackedLayout, TensorEntry } from "./safetensors.js";

/** A weight in few bits: what it is read as, and from what. */
export interface PackedWeight {
  readonly entry: TensorEntry & { readonly dtype: FloatDType };
  readonly packed: PackedLayout;
  /** The tensors that hold its scales, and where these are codes, the scales of those. */
  readonly names: { readonly scales?: string | undefined; readonly coded?: string | undefined };
}

const dtypeOfWords: Readonly<Record<string, FloatDType>> = {
  float32: "F32",
  float16: "F16",
  bfloat16: "BF16",
};

/** The type that a model computes in, by its config; bfloat16 where it does not say. */
function computedType(config: Checkpoint["config"]): FloatDType {
  const places = [config, config["text_config"]].filter(isRecord);
  const words = places.flatMap(({ dtype, torch_dtype: older }) => [dtype, older]);
  const found = words.find((word) => typeof word === "string" && word in dtypeOfWords);
  return dtypeOfWords[String(found)] ?? "BF16";
}

/** A tensor beside a weight, as one row of numbers. */
function rowRef(checkpoint: Checkpoint, name: string): MatrixRef {
  const count = elements(entryOf(checkpoint, name).shape);
  return { ...checkpoint.ref(name), rows: 1, columns: count };
}

/** The scale of a weight that has none. */
const oneScale: MatrixRef = { path: "ones", start: 0, dtype: "F32", constant: 1, rows: 1, columns: 1 };

/** @throws UserError where there are not as many scales as a weight has blocks */
function checkScales(
  { folder }: Checkpoint,
  weight: string,
  found: number,
  { layout, size }: { readonly layout: CodeLayout; readonly size: number },
): void {
  const expected = scaleCount(layout, size);
  if (found !== expected)
    throw new UserError(
      `${folder}: "${weight}" has ${found} scales, and ${expected} blocks; the file is damaged`,
    );
}

/** What of a side of a matrix shares a scale, where there are so many of them; undefined where that is not sure. */
function blockSize(side: number, scales: number): number | undefined {
  if (scales === 0 || side % scales !== 0) return undefined;
  return Math.max(1, side / scales);
}

const blockPair = z.tuple([z.int().positive(), z.int().positive()]);
const blockSettings = z.looseObject({
  weight_block_size: blockPair.nullish(),
  config_groups: z
    .record(
      z.string(),
      z.looseObject({ weights: z.looseObject({ block_structure: blockPair.nullish() }).nullish() }),
    )
    .nullish(),
});

/** The blocks that a config names; undefined where it names none, or several kinds. */
function namedBlocks(config: Checkpoint["config"]): [rows: number, columns: number] | undefined {
  const settings = blockSettings.safeParse(config["quantization_config"]).data;
  if (settings?.weight_block_size) return settings.weight_block_size;
  const groups = Object.values(settings?.config_groups ?? {}).map(({ weights }) => weights?.block_structure);
  const [first] = groups;
  if (groups.some((one) => one?.join() !== first?.join())) return undefined;
  return first ?? undefined;
}

/** The rows and columns that share a scale, by the scales' shape, or as the config says. */
function blocksOf(
  { config, folder }: Checkpoint,
  weight: string,
  shape: readonly number[],
  scales: readonly number[],
): { rows: number; columns: number } {
  const [height, width] = [at(shape, 0), at(shape, 1)];
  const named = namedBlocks(config);
  if (named && scales.length === 2 && Math.max(...scales) > 1) return { rows: named[0], columns: named[1] };
  const [down = 1, across = 1] = scales;
  const [rows, columns] = [blockSize(height, down), blockSize(width, across)];
  if (rows === undefined || columns === undefined)
    throw new UserError(
      `${folder}: the scales [${scales.join(", ")}] of "${weight}" do not fit [${shape.join(", ")}], and config.json ` +
        "does not say how large its blocks are",
    );
  return { rows, columns };
}

/** Whether something that is called a scale stands beside a weight. */
function hasScale({ names }: Checkpoint, weight: string): boolean {
  const module = weight.replace(/\.weight$/, "");
  return names.some((name) => name.startsWith(`${module}.`) && /scale/i.test(name.slice(module.length)));
}

/** FP8 with a scale for each block, row or tensor; without one the bytes are the numbers themselves. */
function floatsOf(checkpoint: Checkpoint, name: string, entry: TensorEntry): PackedWeight | undefined {
  const { dtype, shape } = entry;
  if ((dtype !== "F8_E4M3" && dtype !== "F8_E5M2") || shape.length !== 2) return undefined;
  const scaleName = [`${name}_scale_inv`, `${name}_scale`].find((one) => checkpoint.entry(one));
  // Scaled all the same, by a tensor of another name: it is not read without.
  if (scaleName === undefined && (methodIn(checkpoint.config) !== undefined || hasScale(checkpoint, name)))
    return undefined;
  const scales = scaleName === undefined ? oneScale : rowRef(checkpoint, scaleName);
  if (!isFloat(scales.dtype)) return undefined;
  const scaleShape = checkpoint.entry(scaleName ?? "")?.shape ?? [];
  const layout = {
    bits: 8,
    table: byteTable(dtype),
    width: at(shape, 1),
    factor: 1,
    ...blocksOf(checkpoint, name, shape, scaleShape),
  } as const;
  checkScales(checkpoint, name, scales.columns, { layout, size: elements(shape) });
  return {
    entry: { ...entry, dtype: computedType(checkpoint.config) },
    packed: { ...layout, scales },
    names: { scales: scaleName },
  };
}

/** bitsandbytes's 8 bits (Dettmers et al. 2022, LLM.int8): whole numbers, times a scale a row, over 127. */
async function integersOf(
  checkpoint: Checkpoint,
  name: string,
  entry: TensorEntry,
): Promise<PackedWeight | undefined> {
  const { dtype, shape } = entry;
  const module = name.replace(/\.weight$/, "");
  const scaleName = `${module}.SCB`;
  const scaleEntry = checkpoint.entry(scaleName);
  if (dtype !== "I8" || shape.length !== 2 || !scaleEntry || !isFloat(scaleEntry.dtype)) return undefined;
  const formatName = `${module}.weight_format`;
  if (checkpoint.entry(formatName)) {
    const { bytes } = await checkpoint.read(formatName);
    if (bytes[0] !== 0)
      throw new UserError(
        `${checkpoint.folder}: "${name}" is laid out for a card; load it in bitsandbytes and save it again`,
      );
  }
  const layout = {
    bits: 8,
    table: byteTable("I8"),
    width: at(shape, 1),
    rows: 1,
    columns: at(shape, 1),
    // 1 / 127 as bitsandbytes writes it.
    factor: 7.874015718698502e-3,
  } as const;
  const scales = rowRef(checkpoint, scaleName);
  checkScales(checkpoint, name, scales.columns, { layout, size: elements(shape) });
  return {
    entry: { ...entry, dtype: computedType(checkpoint.config) },
    packed: { ...layout, scales },
    names: { scales: scaleName },
  };
}

const count = z
  .int()
  .positive()
  .max(2 ** 40);
/** What bitsandbytes writes beside a weight of 4 bits. */
const quantState = z.looseObject({
  quant_type: z.enum(["nf4", "fp4"]),
  blocksize: count,
  dtype: z.string(),
  shape: z.array(count).min(1),
  nested_blocksize: count.optional(),
  nested_offset: z.number().optional(),
});

/** A state that is longer is none. Bytes. */
const longestState = 1 << 16;

/** bitsandbytes's 4 bits (Dettmers et al. 2023, QLoRA): codes of a table, a scale a run, which may be codes too. */
async function halfBytesOf(
  checkpoint: Checkpoint,
  name: string,
  entry: TensorEntry,
): Promise<PackedWeight | undefined> {
  const { folder } = checkpoint;
  const stateName = ["nf4", "fp4"]
    .map((kind) => `${name}.quant_state.bitsandbytes__${kind}`)
    .find((one) => checkpoint.entry(one));
  if (entry.dtype !== "U8" || stateName === undefined) return undefined;
  const damaged = () =>
    new UserError(`${folder}: "${stateName}" is none of bitsandbytes's; the file is damaged`);
  if (elements(entryOf(checkpoint, stateName).shape) > longestState) throw damaged();
  const text = Buffer.from((await checkpoint.read(stateName)).bytes).toString("utf8");
  const state = quantState.safeParse(parsed(text)).data;
  const dtype = state && dtypeOfWords[state.dtype];
  if (!state || !dtype || Math.ceil(elements(state.shape) / 2) !== elements(entry.shape)) throw damaged();
  const { blocksize, shape } = state;
  const map = checkpoint.entry(`${name}.quant_map`);
  if (!map || !isFloat(map.dtype) || elements(map.shape) !== 16) throw damaged();
  const table = Array.from(toFloat32(await checkpoint.read(`${name}.quant_map`)));
  const layout = { bits: 4, table, width: blocksize, rows: 1, columns: blocksize, factor: 1 } as const;
  const scales = rowRef(checkpoint, `${name}.absmax`);
  checkScales(checkpoint, name, scales.columns, { layout, size: elements(shape) });
  const scaleName = `${name}.absmax`;
  const coded = await codedScales(checkpoint, name, state);
  if (scales.dtype !== ((coded && "U8") ?? "F32")) throw damaged();
  if (coded)
    checkScales(checkpoint, scaleName, coded.scales.columns, { layout: coded, size: scales.columns });
  return {
    entry: { ...entry, dtype, shape },
    packed: { ...layout, scales, coded },
    names: { scales: scaleName, coded: coded && `${name}.nested_absmax` },
  };
}

/** Of a weight of 4 bits whose scales are codes again, what these stand for. */
async function codedScales(
  checkpoint: Checkpoint,
  name: string,
  { nested_blocksize: run, nested_offset: offset }: z.infer<typeof quantState>,
): Promise<PackedLayout["coded"]> {
  const scaleName = `${name}.nested_absmax`;
  const [own, map] = [checkpoint.entry(scaleName), checkpoint.entry(`${name}.nested_quant_map`)];
  if (!own || run === undefined || offset === undefined) return undefined;
  if (!isFloat(own.dtype) || !map || !isFloat(map.dtype))
    throw new UserError(
      `${checkpoint.folder}: "${scaleName}" is none of bitsandbytes's; the file is damaged`,
    );
  const table = Array.from(toFloat32(await checkpoint.read(`${name}.nested_quant_map`)));
  if (table.length !== 256)
    throw new UserError(`${checkpoint.folder}: "${name}.nested_quant_map" must hold 256 numbers`);
  const layout = { bits: 8, table, width: run, rows: 1, columns: run, factor: 1, offset } as const;
  return { ...layout, scales: rowRef(checkpoint, scaleName) };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Tensors that may stand beside a packed weight, and are read with it or of no use without it. */
export function besides(weight: string): string[] {
  const module = weight.replace(/\.weight$/, "");
  const ofWeight = ["_scale_inv", "_scale", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"];
  const states = ["nf4", "fp4"].map((kind) => `.quant_state.bitsandbytes__${kind}`);
  const ofModule = [
    "SCB",
    "weight_format",
    "input_scale",
    "input_scale_ub",
    "output_scale",
    "activation_scale",
  ];
  return [
    ...[...ofWeight, ...states].map((end) => weight + end),
    ...ofModule.map((end) => `${module}.${end}`),
  ];
}

/** All packed weights of a checkpoint that can be read. */
export async function findPacked(checkpoint: Checkpoint): Promise<Map<string, PackedWeight>> {
  const found = new Map<string, PackedWeight>();
  for (const name of checkpoint.names) {
    const entry = entryOf(checkpoint, name);
    const one =
      floatsOf(checkpoint, name, entry) ??
      (await integersOf(checkpoint, name, entry)) ??
      (await halfBytesOf(checkpoint, name, entry));
    if (one) found.set(name, one);
  }
  return found;
}
