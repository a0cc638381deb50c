import { expect, test } from "vitest";
import { byKind } from "../../src/reproduce/supermerge-coefficients.js";

const kinds = (layers: readonly string[]) => Object.fromEntries(byKind(layers));

test("an encoder's weights are told apart by what they do", () => {
  expect(
    kinds([
      "embeddings.word_embeddings.weight",
      "embeddings.LayerNorm.weight",
      "encoder.layer.0.attention.self.query.weight",
      "encoder.layer.0.attention.output.dense.weight",
      "encoder.layer.0.attention.output.LayerNorm.bias",
      "encoder.layer.0.intermediate.dense.weight",
      "encoder.layer.0.output.dense.bias",
      "logit_scale",
    ]),
  ).toEqual({
    embeddings: ["embeddings.word_embeddings.weight"],
    norms: ["embeddings.LayerNorm.weight", "encoder.layer.0.attention.output.LayerNorm.bias"],
    attention: [
      "encoder.layer.0.attention.self.query.weight",
      "encoder.layer.0.attention.output.dense.weight",
    ],
    "feed-forward": ["encoder.layer.0.intermediate.dense.weight", "encoder.layer.0.output.dense.bias"],
    other: ["logit_scale"],
  });
});

test("T5's encoder and decoder are apart, as in the paper's figure", () => {
  expect(
    kinds([
      "shared.weight",
      "encoder.block.0.layer.0.SelfAttention.q.weight",
      "encoder.block.0.layer.0.layer_norm.weight",
      "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
      "decoder.block.0.layer.1.EncDecAttention.k.weight",
      "decoder.block.0.layer.2.DenseReluDense.wo.weight",
    ]),
  ).toEqual({
    embeddings: ["shared.weight"],
    "encoder, attention": ["encoder.block.0.layer.0.SelfAttention.q.weight"],
    "encoder, norms": ["encoder.block.0.layer.0.layer_norm.weight"],
    "encoder, feed-forward": ["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"],
    "decoder, attention": ["decoder.block.0.layer.1.EncDecAttention.k.weight"],
    "decoder, feed-forward": ["decoder.block.0.layer.2.DenseReluDense.wo.weight"],
  });
});

test("decoders' own names", () => {
  expect(
    kinds([
      "model.layers.0.self_attn.q_proj.weight",
      "model.layers.0.mlp.down_proj.weight",
      "model.layers.0.input_layernorm.weight",
      "h.0.ln_1.weight",
      "h.0.attn.c_attn.weight",
      "h.0.mlp.c_fc.weight",
      "wte.weight",
    ]),
  ).toEqual({
    attention: ["model.layers.0.self_attn.q_proj.weight", "h.0.attn.c_attn.weight"],
    "feed-forward": ["model.layers.0.mlp.down_proj.weight", "h.0.mlp.c_fc.weight"],
    norms: ["model.layers.0.input_layernorm.weight", "h.0.ln_1.weight"],
    embeddings: ["wte.weight"],
  });
});
