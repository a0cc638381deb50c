import { registerKernel, type KernelConfig, type TensorInfo } from "@tensorflow/tfjs-core";

/** A program as tfjs's WebGPU back end takes it (its webgpu_program.d.ts). */
interface Program {
  variableNames: string[];
  outputShape: number[];
  uniforms: string;
  workgroupSize: [number, number, number];
  dispatchLayout: { x: number[] };
  dispatch: [number, number, number];
  shaderKey: string;
  getUserCode(): string;
}
interface Backend {
  runWebGPUProgram(
    program: Program,
    inputs: TensorInfo[],
    dtype: "float32",
    uniforms: { type: "int32"; data: number[] }[],
  ): TensorInfo;
}
interface Call {
  inputs: Record<string, TensorInfo>;
  attrs: { rows: number; width: number };
  backend: unknown;
}

type Packing = "f32" | "bf16" | "int8";

/** Entries in a word, and WGSL that turns word `w` into a vector of them. merge/deltas.ts packs them. */
const layouts: Record<Packing, { per: number; vector: string; unpack: string }> = {
  f32: { per: 1, vector: "f32", unpack: "w" },
  bf16: {
    per: 2,
    vector: "vec2<f32>",
    unpack: "vec2<f32>(bitcast<f32>(w << 16u), bitcast<f32>(w & bitcast<i32>(0xffff0000u)))",
  },
  int8: {
    per: 4,
    vector: "vec4<f32>",
    unpack: "vec4<f32>(f32((w << 24u) >> 24u), f32((w << 16u) >> 24u), f32((w << 8u) >> 24u), f32(w >> 24u))",
  },
};

const groupSize = 64;
/** Words that an invocation of the products takes at least: what it adds up alone costs no barrier. */
const wordsEach = 16;
/** Enough groups to fill a large card; each strides over the rest. */
const mostGroups = 4096;
/** Experts whose sums share one reduction: 8 KiB of a group's memory. */
const together = 32;

/** WGSL for `part j of a vector`, which a scalar has not. */
const part = (packing: Packing, name: string, j: number): string =>
  packing === "f32" ? name : `${name}[${j}]`;

/** A vector filled from `array` at row r, entries w·per…; what lies past the row's end is 0. */
const gatherVector = (packing: Packing, name: string, array: string): string => {
  const { per, vector } = layouts[packing];
  const lines = Array.from(
    { length: per },
    (_, j) => `if (column + ${j} < uniforms.width) { ${part(packing, name, j)} = ${array}[start + ${j}]; }`,
  );
  return `var ${name} = ${vector}(0.0); ${lines.join(" ")}`;
};

/** One word of every expert at `index` → float32 vector `d`; int8 with its row's scale. */
const eachExpert = (packing: Packing, body: string): string => `
    for (var e = 0; e < uniforms.experts; e++) {
      let w = deltas[e * uniforms.rows * uniforms.words + index];
      let d = ${layouts[packing].unpack}${packing === "int8" ? " * scales[e * uniforms.rows + row]" : ""};
      ${body}
    }`;

const place = (packing: Packing): string => `
    let row = index / uniforms.words;
    let column = (index % uniforms.words) * ${layouts[packing].per};
    let start = row * uniforms.width + column;`;

/** One of our programs: what it is called, what it reads beside the deltas, and its WGSL. */
interface OwnProgram {
  readonly name: string;
  readonly order: readonly string[];
  /** Groups of invocations for so many words. */
  groups(words: number): number;
  outputShape(groups: number): number[];
  readonly code: string;
}

function run(
  { inputs, attrs: { rows, width }, backend }: Call,
  packing: Packing,
  { name, order, groups, outputShape, code }: OwnProgram,
): TensorInfo {
  const data = inputs["data"]!;
  const [experts, , words] = data.shape as [number, number, number];
  const dispatched = groups(rows * words);
  const scales = inputs["scales"];
  return (backend as Backend).runWebGPUProgram(
    {
      variableNames: [...order, "deltas", ...(scales ? ["scales"] : [])],
      outputShape: outputShape(dispatched),
      uniforms: "experts : i32, rows : i32, width : i32, words : i32,",
      workgroupSize: [groupSize, 1, 1],
      dispatchLayout: { x: [0] },
      dispatch: [dispatched, 1, 1],
      shaderKey: `trainMerge_${name}_${packing}_${experts}`,
      getUserCode: () => code.replaceAll("EXPERTS", String(experts)),
    },
    [...order.map((input) => inputs[input]!), data, ...(scales ? [scales] : [])],
    "float32",
    [experts, rows, width, words].map((value) => ({ type: "int32", data: [value] })),
  );
}

/** base + Σ c_i τ_i: an invocation a word, which reads each delta once and writes what it stands for. */
function mergeDeltas(call: Call, packing: Packing): TensorInfo {
  const { per } = layouts[packing];
  const size = call.attrs.rows * call.attrs.width;
  const store = Array.from(
    { length: per },
    (_, j) => `if (column + ${j} < uniforms.width) { result[start + ${j}] = ${part(packing, "merged", j)}; }`,
  ).join(" ");
  return run(call, packing, {
    name: "merge",
    order: ["base", "coefficients"],
    groups: (words) => Math.ceil(words / groupSize),
    outputShape: () => [size],
    code: `
  fn main(index : i32) {
    if (index >= uniforms.rows * uniforms.words) { return; }
    ${place(packing)}
    ${gatherVector(packing, "merged", "base")}
    ${eachExpert(packing, "merged = merged + coefficients[e] * d;")}
    ${store}
  }`,
  });
}

/**
 * ⟨∂θ, τ_i⟩ for every expert: invocations stride over the words, keep a sum an expert, and a group adds
 * its own up: [groups, experts].
 */
function deltaProducts(call: Call, packing: Packing): TensorInfo {
  const experts = call.inputs["data"]!.shape[0]!;
  const dot = packing === "f32" ? "dy * d" : "dot(dy, d)";
  return run(call, packing, {
    name: "products",
    order: ["dTheta"],
    groups: (words) => Math.min(mostGroups, Math.ceil(words / groupSize / wordsEach)),
    outputShape: (groups) => [groups, experts],
    code: `
  var<workgroup> partial : array<f32, ${groupSize * together}>;
  fn main(first : i32) {
    var sums : array<f32, EXPERTS>;
    for (var index = first; index < uniforms.rows * uniforms.words; index += i32(numWorkgroups.x) * ${groupSize}) {
      ${place(packing)}
      ${gatherVector(packing, "dy", "dTheta")}
      ${eachExpert(packing, `sums[e] += ${dot};`)}
    }
    for (var lead = 0; lead < EXPERTS; lead += ${together}) {
      let count = min(${together}, EXPERTS - lead);
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

/** The merge op and its gradient as WGSL, in every packing. */
export function registerWebgpuKernels(): void {
  for (const packing of ["f32", "bf16", "int8"] as const) {
    for (const [op, kernel] of [
      ["MergeDeltas", mergeDeltas],
      ["DeltaProducts", deltaProducts],
    ] as const) {
      const kernelFunc = ((call: Call) => kernel(call, packing)) as unknown as KernelConfig["kernelFunc"];
      registerKernel({ kernelName: `${op}_${packing}`, backendName: "webgpu", kernelFunc });
    }
  }
}
