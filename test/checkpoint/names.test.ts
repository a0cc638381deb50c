import { expect, test } from "vitest";
import { backbonePrefix, isOptional, namesAs, spelling, unwrapped } from "../../src/checkpoint/names.js";

/** How one name of a model is spelled. */
const spelled = (
  name: string,
  config: Record<string, unknown> = {},
  others: readonly string[] = [],
): string => spelling({ config, names: [name, ...others] })(name);

test.each([
  ["_orig_mod.layers.0.weight", "layers.0.weight"],
  ["_orig_mod.model._orig_mod.norm.weight", "model.norm.weight"],
  ["_fsdp_wrapped_module.h._fsdp_wrapped_module.0._checkpoint_wrapped_module.w", "h.0.w"],
  ["_forward_module.a.bias", "a.bias"],
  ["module.a.weight", "a.weight"],
  ["module.module.a.weight", "a.weight"],
  ["module._orig_mod.a.weight", "a.weight"],
])("a wrapper's %s is %s", (name, plain) => {
  expect(spelled(name)).toBe(plain);
});

test("module. is a wrapper's only where every name has it", () => {
  expect(spelled("module.a.weight", {}, ["head.weight"])).toBe("module.a.weight");
  expect(unwrapped({ names: [] })("module.a")).toBe("module.a");
});

test.each([
  ["x.LayerNorm.gamma", "x.LayerNorm.weight"],
  ["x.LayerNorm.beta", "x.LayerNorm.bias"],
  // A scale of its own, not a norm's: ConvNeXt, BEiT.
  ["layers.0.gamma", "layers.0.gamma"],
  ["conv.parametrizations.weight.original0", "conv.weight_g"],
  ["conv.parametrizations.weight.original1", "conv.weight_v"],
])("%s is %s in every architecture", (name, plain) => {
  expect(spelled(name)).toBe(plain);
});

const vision = { vision_config: {}, text_config: {} };
test.each([
  ["language_model.model.layers.0.w", vision, "model.language_model.layers.0.w"],
  ["model.language_model.layers.0.w", vision, "model.language_model.layers.0.w"],
  ["model.language_model.model.layers.0.w", vision, "model.language_model.layers.0.w"],
  ["language_model.lm_head.weight", vision, "lm_head.weight"],
  ["vision_tower.vision_model.encoder.w", vision, "model.vision_tower.encoder.w"],
  ["model.vision_tower.vision_model.encoder.w", vision, "model.vision_tower.encoder.w"],
  ["multi_modal_projector.w", vision, "model.multi_modal_projector.w"],
  ["language_model.model.layers.0.w", {}, "language_model.model.layers.0.w"],
  ["visual.blocks.0.w", { model_type: "qwen2_5_vl" }, "model.visual.blocks.0.w"],
  ["model.layers.0.w", { model_type: "qwen2_vl" }, "model.language_model.layers.0.w"],
  ["model.language_model.layers.0.w", { model_type: "qwen2_vl" }, "model.language_model.layers.0.w"],
  [
    "vit.encoder.layer.0.attention.attention.query.w",
    { model_type: "vit" },
    "vit.layers.0.attention.q_proj.w",
  ],
  ["vit.encoder.layer.0.attention.output.dense.w", { model_type: "vit" }, "vit.layers.0.attention.o_proj.w"],
  ["encoder.layer.0.intermediate.dense.w", { model_type: "deit" }, "layers.0.mlp.fc1.w"],
  ["encoder.layer.0.output.dense.w", { model_type: "vit_mae" }, "layers.0.mlp.fc2.w"],
  [
    "encoder.layer.0.attention.attention.key.w",
    { model_type: "dinov2" },
    "encoder.layer.0.attention.k_proj.w",
  ],
  [
    "encoder.layer.0.attention.attention.key.w",
    { model_type: "bert" },
    "encoder.layer.0.attention.attention.key.w",
  ],
  ["model.layers.0.block_sparse_moe.gate.w", { model_type: "mixtral" }, "model.layers.0.mlp.gate.w"],
])("%s of %o is %s", (name, config, plain) => {
  expect(spelled(name, config)).toBe(plain);
});

const set = (...names: string[]): ReadonlySet<string> => new Set(names);
test("a backbone's prefix is found on either side, and only where it explains more than the names as they are", () => {
  const bare = set("embed.w", "h.0.w", "h.1.w");
  const headed = set("model.embed.w", "model.h.0.w", "model.h.1.w", "lm_head.w");
  expect(backbonePrefix(bare, headed)).toEqual({ prefix: "model.", of: "other" });
  expect(backbonePrefix(headed, bare)).toEqual({ prefix: "model.", of: "first" });
  expect(backbonePrefix(bare, bare)).toBeUndefined();
  expect(backbonePrefix(headed, set("model.embed.w", "model.h.0.w", "score.w"))).toBeUndefined();
  expect(backbonePrefix(set("a.w"), set("b.v"))).toBeUndefined();
  // Two files with heads of their own.
  expect(backbonePrefix(set("h.0.w", "h.1.w", "score.w"), set("t.h.0.w", "t.h.1.w", "score.w"))).toEqual({
    prefix: "t.",
    of: "other",
  });
});

test("names are given as the first model's file has them", () => {
  const first = {
    config: { model_type: "electra" },
    names: ["electra.LayerNorm.gamma", "electra.w", "cls.w"],
  };
  const other = {
    config: { model_type: "electra" },
    names: ["module._orig_mod.LayerNorm.weight", "module._orig_mod.w", "module.qa_outputs.w"],
  };
  expect(Object.fromEntries(namesAs(first, other))).toEqual({
    "module._orig_mod.LayerNorm.weight": "electra.LayerNorm.gamma",
    "module._orig_mod.w": "electra.w",
    "module.qa_outputs.w": "qa_outputs.w",
  });
});

test.each([
  ["lm_head.weight", true],
  ["model.lm_head.weight", true],
  ["score.weight", true],
  ["classifier.out_proj.bias", true],
  ["bert.pooler.dense.weight", true],
  ["cls.predictions.transform.dense.weight", true],
  ["qa_outputs.weight", true],
  ["final_logits_bias", true],
  ["vocab_projector.bias", true],
  ["embeddings.position_ids", true],
  ["h.0.attn.masked_bias", true],
  ["model.layers.0.self_attn.rotary_emb.inv_freq", true],
  ["encoder.embed_tokens.weight", true],
  ["model.embed_tokens.weight", false],
  ["model.layers.0.mlp.gate_proj.weight", false],
  ["encoder.layer.0.output.dense.weight", false],
  ["classifiers_of_mine.weight", false],
  ["decoder.layers.0.fc1.weight", false],
  ["model.norm.weight", false],
])("whether %s may be one model's alone: %s", (name, optional) => {
  expect(isOptional(name)).toBe(optional);
});
