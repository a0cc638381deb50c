import { expect, test } from "vitest";
import { bert, electra, roberta } from "../../src/models/bert.js";
import { headName } from "../../src/models/class-names.js";
import { mpnet } from "../../src/models/mpnet.js";

const named = (family: Parameters<typeof headName>[1], architecture: string, prefix: string) =>
  ["classifier.dense.weight", "classifier.out_proj.bias"].map((name) =>
    headName(name, family, { architecture, prefix }),
  );

test("a head in RoBERTa's form is called what the class calls it", () => {
  const choice = ["roberta.pooler.dense.weight", "classifier.bias"];
  expect(named(roberta, "RobertaForMultipleChoice", "roberta.")).toEqual(choice);
  expect(named(mpnet, "MPNetForMultipleChoice", "")).toEqual(["pooler.dense.weight", "classifier.bias"]);
  expect(named(electra, "ElectraForMultipleChoice", "electra.")).toEqual([
    "sequence_summary.summary.weight",
    "classifier.bias",
  ]);
  expect(named(roberta, "RobertaForTokenClassification", "roberta.")[1]).toBe("classifier.bias");
  expect(named(roberta, "RobertaForSequenceClassification", "roberta.")).toEqual([
    "classifier.dense.weight",
    "classifier.out_proj.bias",
  ]);
});

test("what a class calls a head is that head again", () => {
  for (const family of [roberta, electra, mpnet])
    for (const purpose of ["MultipleChoice", "SequenceClassification"])
      expect(named(family, `XFor${purpose}`, `${family.backbone}.`).map(family.canonical)).toEqual([
        "classifier.dense.weight",
        "classifier.out_proj.bias",
      ]);
});

test("BERT's pooler stands in its backbone, its outputs are called alike in every class", () => {
  const place = { architecture: "BertForMultipleChoice", prefix: "bert." };
  expect(headName("pooler.dense.weight", bert, place)).toBe("bert.pooler.dense.weight");
  expect(headName("classifier.weight", bert, place)).toBe("classifier.weight");
});
