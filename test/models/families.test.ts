import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { checkpointTypeOf, families, familyOf, languageModels } from "../../src/models/index.js";
import { packageFolder } from "../../src/package.js";

const golden = join(packageFolder, "test", "golden", "models");
/** Cases that the conformance suite compares with transformers on every engine: those with experts. */
const cases = readdirSync(golden).filter((name) => existsSync(join(golden, name, "a")));
const typesWithCase = new Set(
  cases.map((name) => {
    const config = JSON.parse(readFileSync(join(golden, name, "base", "config.json"), "utf8")) as {
      model_type: string;
    };
    return config.model_type;
  }),
);
const modelTypes = families.flatMap((family) =>
  Object.keys(family.types).map((type) => [type, family] as const),
);

test.each(modelTypes)("%s has a golden case (scripts/golden/models.py)", (type) => {
  expect(typesWithCase).toContain(type);
});

test("every golden case is of a family, and has what the suite reads", () => {
  for (const name of cases) {
    for (const file of ["golden.json", "base/config.json", "a/model.safetensors", "b/model.safetensors"])
      expect(existsSync(join(golden, name, file)), `${name}/${file}`).toBe(true);
  }
  for (const type of typesWithCase) expect(() => familyOf({ model_type: type }, type)).not.toThrow();
});

test.each(modelTypes)(
  "%s belongs to one family, and no name of an object's own is taken for one",
  (type, family) => {
    expect(modelTypes.filter(([other]) => other === type)).toHaveLength(1);
    expect(familyOf({ model_type: type }, "here")).toBe(family);
    for (const other of ["constructor", "toString", undefined, [type]])
      expect(checkpointTypeOf(other)).toBeUndefined();
  },
);

test("messages name the language models there are", () => {
  expect(languageModels).toBe(
    "T5, BART, Llama, Mistral, Qwen2, Qwen3, Qwen3 MoE, Mixtral, OLMo 2, Phi-3, Gemma 2, Gemma 3, GPT-2, GPT-NeoX, " +
      "Falcon, OPT",
  );
});

test("a checkpoint whose head is transformers' own says which class it is", () => {
  const classes = modelTypes.flatMap(([type, { head }]) =>
    head ? [[type, checkpointTypeOf(type)?.className]] : [],
  );
  expect(Object.fromEntries(classes)).toEqual({
    bert: "Bert",
    roberta: "Roberta",
    electra: "Electra",
    albert: "Albert",
    distilbert: "DistilBert",
    "deberta-v2": "DebertaV2",
    modernbert: "ModernBert",
    mpnet: "MPNet",
    "xlm-roberta": "XLMRoberta",
    camembert: "Camembert",
    gpt2: "GPT2",
    llama: "Llama",
    mistral: "Mistral",
    qwen2: "Qwen2",
    qwen3: "Qwen3",
    qwen3_moe: "Qwen3Moe",
    mixtral: "Mixtral",
    olmo2: "Olmo2",
    phi3: "Phi3",
    gemma2: "Gemma2",
    gemma3_text: "Gemma3Text",
    gpt_neox: "GPTNeoX",
    falcon: "Falcon",
    opt: "OPT",
    vit: "ViT",
    dinov2: "Dinov2",
    siglip: "Siglip",
    // Its head is the task-vector papers', of which transformers has no class.
    clip: undefined,
    clip_vision_model: undefined,
  });
});
