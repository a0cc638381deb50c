import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { familyOf } from "../../src/models/index.js";
import { packageFolder } from "../../src/package.js";

/** A golden case's config, with some settings changed. */
const build = (name: string, changes: Record<string, unknown>) => {
  const path = join(packageFolder, "test", "golden", "models", name, "base", "config.json");
  const config = { ...(JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>), ...changes };
  return familyOf(config, name).build(config);
};

const changes: [name: string, change: Record<string, unknown>, says: RegExp][] = [
  ["qwen3", { partial_rotary_factor: 0.75 }, /"partial_rotary_factor": 0.75 is not supported/],
  ["qwen3", { rope_parameters: { partial_rotary_factor: 0.75 } }, /"partial_rotary_factor": 0.75/],
  ["gemma3", { partial_rotary_factor: 0.75 }, /"partial_rotary_factor": 0.75 is not supported/],
  // A head of four entries: one and a half pairs.
  ["phi3-long", { partial_rotary_factor: 0.75 }, /no even number/],
  ["phi3-long", { partial_rotary_factor: 1.5 }, /no even number/],
  ["phi3-long", { partial_rotary_factor: 1 }, /"short_factor" must be 2 numbers/],
  ["phi3-long", { rope_scaling: { type: "longrope", short_factor: ["2"] } }, /"short_factor" must be 1/],
  ["phi3-long", { rope_scaling: { type: "ntk", factor: 2 } }, /"ntk" are not/],
  ["gemma2", { use_bidirectional_attention: true }, /"use_bidirectional_attention"/],
  ["gemma2", { final_logit_softcapping: -1 }, /"final_logit_softcapping" must be a number above 0/],
  ["gemma3", { final_logit_softcapping: 30 }, /"final_logit_softcapping": 30 is not supported/],
  ["albert", { num_hidden_groups: 4 }, /"num_hidden_groups" must be a whole number from 1 to 3/],
  ["falcon", { alibi: true }, /"alibi": true is not supported/],
  ["falcon", { partial_rotary_factor: 0.5 }, /"partial_rotary_factor": 0.5 is not supported/],
  [
    "falcon",
    { rope_parameters: { rope_theta: 10, partial_rotary_factor: 0.5 } },
    /"partial_rotary_factor": 0.5/,
  ],
  [
    "falcon",
    { rope_parameters: { rope_type: "longrope", factor: 2, short_factor: [1, 1] } },
    /"longrope" are not supported/,
  ],
  [
    "modernbert",
    { rope_parameters: { full_attention: { rope_theta: 10, partial_rotary_factor: 0.5 } } },
    /"partial_rotary_factor": 0.5/,
  ],
  ["falcon", { num_kv_heads: 3 }, /"num_kv_heads": 3/],
  ["falcon", { parallel_attn: false }, /"parallel_attn": false/],
  [
    "falcon-7b",
    { num_ln_in_parallel_attn: 2 },
    /"num_ln_in_parallel_attn" must be a whole number from 1 to 1/,
  ],
  ["dinov2", { use_swiglu_ffn: true }, /"use_swiglu_ffn": true is not supported/],
  ["dinov2", { image_size: 10 }, /"image_size": 10 is not supported for dinov2, only "multiples of 4"/],
  ["bart", { tie_word_embeddings: false }, /"tie_word_embeddings": false is not supported/],
  ["deberta", { conv_kernel_size: 3 }, /"conv_kernel_size": 3 is not supported/],
  ["deberta", { pos_att_type: ["c2p"] }, /"pos_att_type": \["c2p"\] is not supported/],
  ["deberta", { relative_attention: false }, /"relative_attention": false/],
  ["deberta", { embedding_size: 8 }, /"embedding_size": 8/],
  ["deberta", { pooler_hidden_act: "relu" }, /"pooler_hidden_act": "relu"/],
  ["modernbert", { mlp_bias: true }, /"mlp_bias": true is not supported/],
  ["modernbert", { classifier_pooling: "max" }, /"classifier_pooling": "max"/],
  ["modernbert", { layer_types: ["full_attention"] }, /"layer_types"/],
  ["distilbert", { activation: "silly" }, /"activation": "silly"/],
  ["electra", { position_embedding_type: "relative_key" }, /"position_embedding_type"/],
];
test.each(changes)("%s with %j is refused", (name, change, says) => {
  expect(() => build(name, {})).not.toThrow();
  expect(() => build(name, change)).toThrow(says);
});

test("LongRoPE's factors are for texts of the length that a model was trained on first", () => {
  expect(build("phi3-long", {}).maxLength).toBe(64);
  // Phi-3's first configs call it "su", and one of them "yarn".
  const names = ["longrope", "su", "yarn"].map((type) =>
    build("phi3-long", { rope_scaling: { type, short_factor: [1.1], long_factor: [4] } }),
  );
  expect(names.map(({ maxLength }) => maxLength)).toEqual([64, 64, 64]);
});

test("DeBERTa's kinds of attention may be written in one text", () => {
  expect(() => build("deberta", { pos_att_type: "p2c|c2p" })).not.toThrow();
});

test("SigLIP's configs say only what is other than transformers' defaults", () => {
  const named = { model_type: "siglip", vision_config: { model_type: "siglip_vision_model" } };
  const { image, width, heads } = familyOf(named, "siglip").build(named);
  expect([image?.size, image?.patch, width, heads]).toEqual([224, 16, 768, 12]);
  // What is beyond the last whole patch is not looked at: 27 × 27 of them.
  const large = { ...named, vision_config: { image_size: 384, patch_size: 14 } };
  expect(familyOf(large, "siglip").build(large).maxLength).toBe(729);
});
