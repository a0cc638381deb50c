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
  ["phi3", { partial_rotary_factor: 0.75 }, /"partial_rotary_factor": 0.75 is not supported/],
  ["phi3", { rope_parameters: { partial_rotary_factor: 0.75 } }, /"partial_rotary_factor": 0.75/],
  [
    "phi3",
    { rope_scaling: { type: "longrope", factor: 2 }, rope_parameters: undefined },
    /"longrope" are not/,
  ],
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

test("DeBERTa's kinds of attention may be written in one text", () => {
  expect(() => build("deberta", { pos_att_type: "p2c|c2p" })).not.toThrow();
});
