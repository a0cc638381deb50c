import { expect, test } from "vitest";
import { groupLayers } from "../../src/merge/table.js";

const names = [
  "embeddings.LayerNorm.weight",
  "encoder.layer.0.attention.self.query.weight",
  "encoder.layer.0.attention.self.query.bias",
  "encoder.layer.1.output.dense.bias",
  "pooler.dense.weight",
];

test.each([
  ["tensor", names],
  [
    "module",
    [
      "embeddings.LayerNorm",
      "encoder.layer.0.attention.self.query",
      "encoder.layer.1.output.dense",
      "pooler.dense",
    ],
  ],
  ["block", ["embeddings", "encoder.layer.0", "encoder.layer.1", "pooler"]],
  ["model", ["model"]],
] as const)("%s", (granularity, ids) => {
  const layers = groupLayers(names, granularity);
  expect(layers.map(({ id }) => id)).toEqual(ids);
  expect(layers.flatMap((layer) => layer.names)).toEqual(names);
});
