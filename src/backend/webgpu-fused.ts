/**
 * Chains of small ops of a transformer as one program each: what a step of a small model takes on a fast card is the
 * time to ask for its programs. models/ asks for these kernels where an engine has them.
 */
import { util, type TensorInfo } from "@tensorflow/tfjs-core";
import { defineKernel, matrixSizes } from "./kernels.js";
import { groupSize, runProgram, type WebgpuCall } from "./webgpu-program.js";

/** WGSL: a number of every invocation of a group → their sum, in all of them. */
const groupSum = `
  var<workgroup> partial : array<f32, ${groupSize}>;
  fn groupSum(own : f32) -> f32 {
    partial[localIndex] = own;
    for (var half = ${groupSize / 2}u; half > 0u; half /= 2u) {
      workgroupBarrier();
      if (localIndex < half) { partial[localIndex] += partial[localIndex + half]; }
    }
    workgroupBarrier();
    let sum = partial[0];
    workgroupBarrier();
    return sum;
  }`;

/** WGSL: each of a row's entries that an invocation has. */
const eachOfRow = (body: string): string =>
  `for (var i = i32(localIndex); i < uniforms.width; i += ${groupSize}) { ${body} }`;

/** WGSL: a group a row. The last groups may have none: they do what the last row's does, and write nothing. */
const ownRow = `
    let place = index / ${groupSize};
    let row = min(place, uniforms.rows - 1);
    let start = row * uniforms.width;`;

/** x [rows, width] → [rows, 2]: each row's mean (0 where `centred` is 0) and 1 / √(variance + epsilon). */
function rowStatistics(call: WebgpuCall): TensorInfo {
  const x = call.input("x");
  const [rows, width] = matrixSizes(x);
  return runProgram(call, {
    name: "rowStatistics",
    inputs: [["x", x]],
    whole: { rows, width, centred: call.flag("centred") ? 1 : 0 },
    reals: { epsilon: call.number("epsilon") },
    groups: rows,
    outputShape: [rows, 2],
    code: `${groupSum}
  fn main(index : i32) {
    ${ownRow}
    var sum = 0.0;
    ${eachOfRow("sum += x[start + i];")}
    let mean = groupSum(sum) * f32(uniforms.centred) / f32(uniforms.width);
    var squares = 0.0;
    ${eachOfRow("let d = x[start + i] - mean; squares += d * d;")}
    let variance = groupSum(squares) / f32(uniforms.width);
    if (localIndex == 0u && place < uniforms.rows) {
      result[2 * row] = mean;
      result[2 * row + 1] = inverseSqrt(variance + uniforms.epsilon);
    }
  }`,
  });
}

const normalAt = (place: string): string => `(x[${place}] - statistics[2 * row]) * statistics[2 * row + 1]`;

/** One value an entry of a matrix, of the entry, its row and its column. */
function eachEntry(
  call: WebgpuCall,
  { name, inputs, value }: { name: string; inputs: readonly string[]; value: string },
): TensorInfo {
  const x = call.input("x");
  const [rows, width] = matrixSizes(x);
  return runProgram(call, {
    name,
    inputs: inputs.map((input) => [input, call.input(input)]),
    whole: { entries: rows * width, width },
    groups: Math.ceil((rows * width) / groupSize),
    outputShape: [rows, width],
    code: `
  fn main(index : i32) {
    if (index >= uniforms.entries) { return; }
    let row = index / uniforms.width;
    let column = index % uniforms.width;
    result[index] = ${value};
  }`,
  });
}

/** (x − mean) / deviation ⊙ scale [+ shift], by the rows' statistics. */
const normaliseRows = (call: WebgpuCall): TensorInfo =>
  call.optionalInput("shift")
    ? eachEntry(call, {
        name: "layerNorm",
        inputs: ["x", "statistics", "scale", "shift"],
        value: `${normalAt("index")} * scale[column] + shift[column]`,
      })
    : eachEntry(call, {
        name: "rmsNorm",
        inputs: ["x", "statistics", "scale"],
        value: `${normalAt("index")} * scale[column]`,
      });

/** dy ⊙ (x − mean) / deviation: what is summed over the rows for the scale's gradient. */
const normalProducts = (call: WebgpuCall): TensorInfo =>
  eachEntry(call, {
    name: "normalProducts",
    inputs: ["x", "statistics", "dy"],
    value: `dy[index] * ${normalAt("index")}`,
  });

/** The gradient of x through its normalisation. */
function normGradient(call: WebgpuCall): TensorInfo {
  const x = call.input("x");
  const [rows, width] = matrixSizes(x);
  return runProgram(call, {
    name: "normGradient",
    inputs: [["x", x], ...["statistics", "scale", "dy"].map((name) => [name, call.input(name)] as const)],
    whole: { rows, width, centred: call.flag("centred") ? 1 : 0 },
    groups: rows,
    outputShape: [rows, width],
    code: `${groupSum}
  fn main(index : i32) {
    ${ownRow}
    var plain = 0.0;
    var along = 0.0;
    ${eachOfRow(`let d = dy[start + i] * scale[i]; plain += d; along += d * ${normalAt("start + i")};`)}
    let meanPlain = groupSum(plain) * f32(uniforms.centred) / f32(uniforms.width);
    let meanAlong = groupSum(along) / f32(uniforms.width);
    if (place < uniforms.rows) {
      ${eachOfRow(
        `result[start + i] = statistics[2 * row + 1] *
          (dy[start + i] * scale[i] - meanPlain - ${normalAt("start + i")} * meanAlong);`,
      )}
    }
  }`,
  });
}

/** An activation: its value at `a`, and its derivative there. */
interface Activation {
  readonly helpers?: string;
  readonly value: string;
  readonly derivative: string;
}

/** Φ by Abramowitz & Stegun 7.1.26, as tfjs's erf has it (1.5e-7). */
const cdf = `
  fn cdf(a : f32) -> f32 {
    let z = abs(a) * ${Math.SQRT1_2};
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return 0.5 + 0.5 * sign(a) * (1.0 - p * exp(-z * z));
  }`;

/** tanh that does not overflow. */
const inner = `
  fn inner(a : f32) -> f32 {
    return tanh(clamp(${Math.sqrt(2 / Math.PI)} * a * (1.0 + 0.044715 * a * a), -15.0, 15.0));
  }`;

const swish = (slope: string): Activation => ({
  helpers: "fn gate(a : f32) -> f32 { return 1.0 / (1.0 + exp(-a)); }",
  value: `a * gate(${slope} * a)`,
  derivative: `gate(${slope} * a) * (1.0 + ${slope} * a * (1.0 - gate(${slope} * a)))`,
});

/** By the names that models/layers.ts gives them. */
const activations: Readonly<Record<string, Activation>> = {
  gelu: {
    helpers: cdf,
    value: "a * cdf(a)",
    derivative: `cdf(a) + a * exp(-0.5 * a * a) * ${1 / Math.sqrt(2 * Math.PI)}`,
  },
  geluTanh: {
    helpers: inner,
    value: "0.5 * a * (1.0 + inner(a))",
    derivative:
      "0.5 * (1.0 + inner(a)) + 0.5 * a * (1.0 - inner(a) * inner(a)) * " +
      `${Math.sqrt(2 / Math.PI)} * (1.0 + ${3 * 0.044715} * a * a)`,
  },
  silu: swish("1.0"),
  quickGelu: swish("1.702"),
};

function activate(
  call: WebgpuCall,
  name: string,
  { helpers = "", value }: { helpers?: string | undefined; value: string },
): TensorInfo {
  const x = call.input("x");
  const dy = call.optionalInput("dy");
  const entries = util.sizeFromShape(x.shape);
  return runProgram(call, {
    name,
    inputs: dy
      ? [
          ["x", x],
          ["dy", dy],
        ]
      : [["x", x]],
    whole: { entries },
    groups: Math.ceil(entries / groupSize),
    outputShape: x.shape,
    code: `${helpers}
  fn main(index : i32) {
    if (index >= uniforms.entries) { return; }
    let a = x[index];
    result[index] = ${value};
  }`,
  });
}

export function registerFusedKernels(): void {
  const define = (name: string, kernel: (call: WebgpuCall) => TensorInfo) =>
    defineKernel("webgpu", name, kernel);
  define("RowStatistics", rowStatistics);
  define("NormaliseRows", normaliseRows);
  define("NormalProducts", normalProducts);
  define("NormGradient", normGradient);
  for (const [name, { helpers, value, derivative }] of Object.entries(activations)) {
    define(`Activation_${name}`, (call) => activate(call, name, { helpers, value }));
    define(`ActivationGradient_${name}`, (call) =>
      activate(call, `${name}Gradient`, { helpers, value: `dy[index] * (${derivative})` }),
    );
  }
}
