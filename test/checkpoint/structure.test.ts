import { expect, test } from "vitest";
import { member } from "../../src/checkpoint/family.js";
import { inMemory } from "../../src/checkpoint/overlay.js";
import { refuseQuantised } from "../../src/checkpoint/quantised.js";
import { checkStructure, structureDifferences } from "../../src/checkpoint/structure.js";
import type { DType } from "../../src/tensor/dtype.js";

const llama = {
  model_type: "llama",
  hidden_size: 16,
  num_hidden_layers: 2,
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
};
const keysOf = (other: object, first: object = llama, sliced = false): string[] =>
  structureDifferences(first as never, { ...first, ...other }, { sliced }).map(({ key }) => key);

test.each<[object, string[]]>([
  [{}, []],
  [{ vocab_size: 99, transformers_version: "5", id2label: { 0: "no" }, architectures: ["X"] }, []],
  [{ model_type: "qwen2" }, ["model_type"]],
  [{ num_hidden_layers: 3 }, ["num_hidden_layers"]],
  [{ hidden_size: 32, rms_norm_eps: 1e-6 }, ["hidden_size", "rms_norm_eps"]],
  [{ hidden_act: "swish" }, []],
  [{ hidden_act: "gelu" }, ["hidden_act"]],
  [{ rope_theta: 500000 }, ["rope_theta"]],
  // What a config does not say is not held against it.
  [{ hidden_act: undefined, num_hidden_layers: null }, []],
])("%o differs in %o", (other, keys) => {
  expect(keysOf(other)).toEqual(keys);
});

test("RoPE is read where transformers 4 and where 5 writes it", () => {
  const { rope_theta: _, ...plain } = llama;
  const five = { ...plain, rope_parameters: { rope_theta: 10000, rope_type: "default" } };
  expect(structureDifferences(llama, five)).toEqual([]);
  const scaled = { ...llama, rope_scaling: { type: "linear", factor: 2 } };
  expect(structureDifferences(llama, scaled).map(({ key }) => key)).toEqual(["rope_type", "rope_factor"]);
  const scaledFive = { ...plain, rope_parameters: { rope_theta: 10000, rope_type: "linear", factor: 2 } };
  expect(structureDifferences(scaled, scaledFive)).toEqual([]);
});

test("configs within configs are compared; layers are not, where a file stacks them anew", () => {
  const nested = { model_type: "llava", text_config: llama };
  expect(keysOf({ text_config: { ...llama, hidden_size: 8 } }, nested)).toEqual(["text_config.hidden_size"]);
  expect(keysOf({ num_hidden_layers: 9 }, llama, true)).toEqual([]);
  expect(keysOf({ hidden_size: 9 }, llama, true)).toEqual(["hidden_size"]);
});

test("a part of a model is held against what the whole says of it", () => {
  const whole = { model_type: "clip", vision_config: { hidden_size: 8 }, text_config: { hidden_size: 4 } };
  const tower = { model_type: "clip_vision_model", hidden_size: 8 };
  expect(structureDifferences(whole, tower)).toEqual([]);
  expect(structureDifferences(tower, whole)).toEqual([]);
  expect(structureDifferences(whole, { ...tower, hidden_size: 4 }).map(({ key }) => key)).toEqual([
    "hidden_size",
  ]);
  expect(structureDifferences(whole, { model_type: "clip_text_model", hidden_size: 4 })).toEqual([]);
  expect(structureDifferences(whole, { ...tower, model_type: "siglip_vision_model" })[0]?.key).toBe(
    "model_type",
  );
});

test("a model of another architecture is refused by its name, or let through and said", () => {
  const of = (label: string, config: object) =>
    member(label, inMemory(`/${label}`, config as never, new Map()), (name) => name);
  const [base, same, other] = [of("base", llama), of("a", llama), of("b", { ...llama, model_type: "bert" })];
  expect(checkStructure(base, [base, same], { allow: false })).toEqual([]);
  expect(() => checkStructure(base, [same, other], { allow: false })).toThrow(
    /^\/b \(b\): its config\.json has model_type "bert", that of \/base \(base\) "llama".*--allow-mismatch$/,
  );
  expect(checkStructure(base, [same, other], { allow: true })).toEqual([
    expect.stringMatching(/^\/b \(b\): .*"bert"/),
  ]);
});

const entry = (dtype: DType, ...shape: number[]) => ({ dtype, shape, start: 0, end: 0 });
test.each<[string, object, [string, ReturnType<typeof entry>][], RegExp]>([
  ["by its config", { quantization_config: { quant_method: "awq" } }, [], /quantised \(awq\)/],
  ["within a model", { text_config: { quantization_config: { quant_method: "fp8" } } }, [], /\(fp8\)/],
  ["without a name", { quantization_config: {} }, [], /does not say how/],
  ["GPTQ", {}, [["h.0.q.qweight", entry("I32", 4, 4)]], /GPTQ.*h\.0\.q\.qweight/],
  ["bitsandbytes", {}, [["h.0.q.SCB", entry("F32", 4)]], /bitsandbytes/],
  ["4 bits", {}, [["h.0.q.weight.quant_state.bitsandbytes__nf4", entry("U8", 4)]], /bitsandbytes/],
  ["FP8 with scales", {}, [["h.0.q.weight_scale_inv", entry("F32", 1, 1)]], /FP8/],
  ["FP8 alone", {}, [["h.0.q.weight", entry("F8_E4M3", 4, 4)]], /F8_E4M3: "h\.0\.q\.weight"/],
  ["MXFP4", {}, [["mlp.experts.down_proj_blocks", entry("U8", 4, 4)]], /MXFP4/],
])("quantised weights are refused: %s", (_, config, tensors, message) => {
  expect(() => refuseQuantised("/m", config as never, tensors)).toThrow(message);
});

test("what only looks like it is not quantised", () => {
  expect(() =>
    refuseQuantised("/m", { quantization_config: null }, [
      ["layer_scale1.lambda1", entry("F32", 4)],
      ["h.0.weight", entry("BF16", 4, 4)],
      ["h.0.attn.bias", entry("U8", 1, 1, 4, 4)],
      ["scale", entry("F8_E8M0", 4)],
    ]),
  ).not.toThrow();
});
