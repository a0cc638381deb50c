import type { TensorInfo } from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import { defineKernel, threeSizes } from "./kernels.js";
import { registerFusedKernels } from "./webgpu-fused.js";
import { defineProducts } from "./webgpu-products.js";
import { groupSize, runProgram, type WebgpuCall } from "./webgpu-program.js";

/** How entries of deltas lie in words of 32 bits; merge/packing.ts packs them. */
interface WordLayout {
  /** As merge/packing.ts calls it. */
  readonly packing: "f32" | "bf16" | "f16" | "int8";
  /** Entries in a word. */
  readonly per: number;
  /** The WGSL type of a word's entries. */
  readonly vector: string;
  /** WGSL that turns word `w` into them. */
  readonly unpack: string;
  /** WGSL for entry j of such a vector: a scalar has none. */
  entry(vector: string, j: number): string;
  /** WGSL for the inner product of two of them. */
  dot(a: string, b: string): string;
}

const ofVector: Pick<WordLayout, "entry" | "dot"> = {
  entry: (vector, j) => `${vector}[${j}]`,
  dot: (a, b) => `dot(${a}, ${b})`,
};

const layouts: readonly WordLayout[] = [
  {
    packing: "f32",
    per: 1,
    vector: "f32",
    unpack: "w",
    entry: (scalar) => scalar,
    dot: (a, b) => `${a} * ${b}`,
  },
  {
    packing: "bf16",
    per: 2,
    vector: "vec2<f32>",
    unpack: "vec2<f32>(bitcast<f32>(w << 16u), bitcast<f32>(w & bitcast<i32>(0xffff0000u)))",
    ...ofVector,
  },
  {
    packing: "f16",
    per: 2,
    vector: "vec2<f32>",
    unpack: "unpack2x16float(bitcast<u32>(w))",
    ...ofVector,
  },
  {
    packing: "int8",
    per: 4,
    vector: "vec4<f32>",
    // With its row's scale.
    unpack:
      "vec4<f32>(f32((w << 24u) >> 24u), f32((w << 16u) >> 24u), f32((w << 8u) >> 24u), f32(w >> 24u))" +
      " * scales[e * uniforms.rows + row]",
    ...ofVector,
  },
];

/** Words that an invocation of the products takes at least: what it adds up alone costs no barrier. */
const wordsEach = 16;
/** Enough groups to fill a large card; each strides over the rest. */
const mostGroups = 4096;
/** Experts whose sums share one reduction: 8 KiB of a group's memory. */
const expertsTogether = 32;

/** WGSL that does something with each entry of the word at `column` that lies within the row. */
const eachEntry = ({ per }: WordLayout, body: (j: number) => string): string =>
  Array.from({ length: per }, (_, j) => `if (column + ${j} < uniforms.width) { ${body(j)} }`).join(" ");

/** A vector filled from `array` at row r, entries w·per…; what lies past the row's end is 0. */
const gatherVector = (layout: WordLayout, name: string, array: string): string =>
  `var ${name} = ${layout.vector}(0.0); ` +
  eachEntry(layout, (j) => `${layout.entry(name, j)} = ${array}[start + ${j}];`);

/** One word of every expert at `index` → float32 vector `d`. */
const eachExpert = ({ unpack }: WordLayout, body: string): string => `
    for (var e = 0; e < EXPERTS; e++) {
      let w = deltas[e * uniforms.rows * uniforms.words + index];
      let d = ${unpack};
      ${body}
    }`;

const wordPlace = ({ per }: WordLayout): string => `
    let row = index / uniforms.words;
    let column = (index % uniforms.words) * ${per};
    let start = row * uniforms.width + column;`;

/** One of our programs: what it is called, what it reads beside the deltas, and its WGSL. */
interface DeltaProgram {
  readonly name: string;
  readonly order: readonly string[];
  /** Groups of invocations for so many words. */
  groups(words: number): number;
  outputShape(groups: number): number[];
  readonly code: string;
}

/** Runs a program on deltas [experts, rows, words]. */
function runOnDeltas(
  call: WebgpuCall,
  { packing }: WordLayout,
  { name, order, groups, outputShape, code }: DeltaProgram,
): TensorInfo {
  const [data, scales] = [call.input("data"), call.optionalInput("scales")];
  const [rows, width] = [call.number("rows"), call.number("width")];
  const [experts, , words] = threeSizes(data);
  const dispatched = groups(rows * words);
  return runProgram(call, {
    name: `${name}_${packing}_${experts}`,
    inputs: [
      ...order.map((input) => [input, call.input(input)] as const),
      ["deltas", data],
      ...(scales ? [["scales", scales] as const] : []),
    ],
    whole: { experts, rows, width, words },
    groups: dispatched,
    outputShape: outputShape(dispatched),
    code: code.replaceAll("EXPERTS", String(experts)),
  });
}

/** base + Σ c_i τ_i: an invocation a word, which reads each delta once and writes what it stands for. */
function mergeDeltas(call: WebgpuCall, layout: WordLayout): TensorInfo {
  const size = call.number("rows") * call.number("width");
  return runOnDeltas(call, layout, {
    name: "merge",
    order: ["base", "coefficients"],
    groups: (words) => Math.ceil(words / groupSize),
    outputShape: () => [size],
    code: `
  fn main(index : i32) {
    if (index >= uniforms.rows * uniforms.words) { return; }
    ${wordPlace(layout)}
    ${gatherVector(layout, "merged", "base")}
    ${eachExpert(layout, "merged = merged + coefficients[e] * d;")}
    ${eachEntry(layout, (j) => `result[start + ${j}] = ${layout.entry("merged", j)};`)}
  }`,
  });
}

/**
 * ⟨∂θ, τ_i⟩ for every expert: invocations stride over the words, keep a sum an expert, and a group adds
 * its own up: [groups, experts].
 */
function deltaProducts(call: WebgpuCall, layout: WordLayout): TensorInfo {
  const experts = at(call.input("data").shape, 0);
  return runOnDeltas(call, layout, {
    name: "products",
    order: ["dTheta"],
    groups: (words) => Math.min(mostGroups, Math.ceil(words / groupSize / wordsEach)),
    outputShape: (groups) => [groups, experts],
    code: `
  var<workgroup> partial : array<f32, ${groupSize * expertsTogether}>;
  fn main(first : i32) {
    var sums : array<f32, EXPERTS>;
    for (var index = first; index < uniforms.rows * uniforms.words; index += i32(numWorkgroups.x) * ${groupSize}) {
      ${wordPlace(layout)}
      ${gatherVector(layout, "dy", "dTheta")}
      ${eachExpert(layout, `sums[e] += ${layout.dot("dy", "d")};`)}
    }
    for (var lead = 0; lead < EXPERTS; lead += ${expertsTogether}) {
      let count = min(${expertsTogether}, EXPERTS - lead);
      for (var e = 0; e < count; e++) { partial[e * ${groupSize} + i32(localIndex)] = sums[lead + e]; }
      for (var half = ${groupSize / 2}u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (localIndex < half) {
          for (var e = 0; e < count; e++) {
            partial[e * ${groupSize} + i32(localIndex)] += partial[e * ${groupSize} + i32(localIndex + half)];
          }
        }
      }
      if (localIndex == 0u) {
        for (var e = 0; e < count; e++) { result[i32(workgroupId.x) * EXPERTS + lead + e] = partial[e * ${groupSize}]; }
      }
      workgroupBarrier();
    }
  }`,
  });
}

/** Rows of packed deltas [experts, rows, words], word by word: tfjs's gather would make float32 of them on the way. */
function takeRows(call: WebgpuCall): TensorInfo {
  const [data, ids] = [call.input("data"), call.input("ids")];
  const [experts, rows, words] = threeSizes(data);
  const taken = at(ids.shape, 0);
  const size = experts * taken * words;
  return runProgram(call, {
    name: "takeRows",
    inputs: [
      ["data", data],
      ["ids", ids],
    ],
    whole: { size, rows, taken, words },
    groups: Math.ceil(size / groupSize),
    outputShape: [experts, taken, words],
    dtype: "int32",
    code: `
  fn main(index : i32) {
    if (index >= uniforms.size) { return; }
    let place = index / uniforms.words;
    let row = (place / uniforms.taken) * uniforms.rows + ids[place % uniforms.taken];
    result[index] = data[row * uniforms.words + index % uniforms.words];
  }`,
  });
}

/** The merge op and its gradient as WGSL, in every packing, the fused ones, and products that are right. */
export function registerWebgpuKernels(): void {
  defineProducts();
  defineKernel("webgpu", "TakeRows", takeRows);
  registerFusedKernels();
  for (const layout of layouts) {
    const define = (op: string, kernel: (call: WebgpuCall, layout: WordLayout) => TensorInfo) =>
      defineKernel("webgpu", `${op}_${layout.packing}`, (call: WebgpuCall) => kernel(call, layout));
    define("MergeDeltas", mergeDeltas);
    define("DeltaProducts", deltaProducts);
  }
}
