"""Makes test/golden/published/: mergekit files with the features and in the shapes of those that people publish, and what
mergekit makes of them. The models have names of the hub: the test serves them from a stand-in of it.

    .venv/bin/pip install mergekit==0.1.5 peft
    .venv/bin/python scripts/golden/published_with_mergekit.py

Where a method elects or drops (TIES, DARE …), files say dtype float32 and out_dtype bfloat16: in bfloat16 magnitudes of
differences tie, and which of them mergekit's sort keeps is chance. So does Karcher's: mergekit takes angles in bfloat16, where
a cosine near 1 has three digits, and comes out up to a tenth beside the mean.
"""
import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import with_mergekit  # exchanges mergekit's draws for train-merge's

ROOT = Path(__file__).resolve().parents[2] / "test" / "golden" / "published"
BASE, CHAT, CODE, MATH = "north/base-1b", "north/chat-1b", "south/code-1b", "east/math-1b-v0.2"
STORY, POEM = "west/story-lora", "west/poem-lora"
TOKENS = "<unk> a b c d e f g h i j k l m".split()
CHATML = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}"
PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
LAYERS = 4

BF16 = "dtype: bfloat16\n"
ELECTS = "dtype: float32\nout_dtype: bfloat16\n"
CURVES = """parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5  # all other tensors
"""


def two(a, b, to=LAYERS):
    return f"slices:\n  - sources:\n      - model: {a}\n        layer_range: [0, {to}]\n      - model: {b}\n        layer_range: [0, {to}]\n"


def models(*named, indent=""):
    """Of each its name, and its parameters in one line."""
    lines = [f"{indent}models:"]
    for name, *parameters in named:
        lines.append(f"{indent}  - model: {name}")
        for parameter in parameters:
            lines.append(f"{indent}    parameters: {parameter}")
    return "\n".join(lines) + "\n"


def stack(*parts):
    return "slices:\n" + "".join(f"  - sources:\n    - model: {name}\n      layer_range: [{a}, {b}]\n" for name, a, b in parts)


FILES = {
    # In the shapes of mergekit's own examples.
    "example-bio": models((BASE,), (CHAT, "{weight: 0.6, density: 0.55}"), (CODE, "{weight: 0.3, density: 0.56}"), (MATH, "{weight: 0.1, density: 0.5}"))
    + f"merge_method: dare_ties\nbase_model: {BASE}\nparameters:\n  int8_mask: true\n" + ELECTS,
    "example-gradient-slerp": two(CHAT, CODE) + f"merge_method: slerp\nbase_model: {CHAT}\n" + CURVES + "dtype: float16\n",
    "example-linear": models((CHAT, "{weight: 1.0}"), (CODE, "{weight: 0.3}"), (MATH, "{weight: 0.5}")) + "merge_method: linear\ndtype: float16\n",
    "example-longer": stack((CHAT, 0, 2), (CODE, 1, 3), (CHAT, 3, 4)) + "merge_method: passthrough\ndtype: float16\n",
    "example-ties": models((CHAT, "{density: [1, 0.7, 0.1], weight: 1.0}"), (CODE, "{density: 0.5, weight: [0, 0.3, 0.7, 1]}"),
                           (MATH, "{density: 0.33, weight: [{filter: mlp, value: 0.5}, {value: 0}]}"))
    + f"merge_method: ties\nbase_model: {BASE}\nparameters:\n  normalize: true\n  int8_mask: true\ndtype: float32\nout_dtype: float16\n",
    "example-fusion": f"base_model: {BASE}\nmerge_method: arcee_fusion\nmodels:\n  - model: {CHAT}\n" + ELECTS,
    # In the shapes of other people's.
    "slerp-base-second": two(CHAT, CODE) + f"merge_method: slerp\nbase_model: {CODE}\n" + CURVES + "tokenizer_source: union\n" + BF16,
    "slerp-plain": f"models:\n  - model: {CHAT}\n  - model: {MATH}\nmerge_method: slerp\nbase_model: {MATH}\nparameters:\n  t: 0.2\n" + BF16,
    "slerp-ranges-in-models": f"models:\n  - layer_range: [0, {LAYERS}]\n    model: {CHAT}\n  - layer_range: [0, {LAYERS}]\n    model: {CODE}\nmerge_method: slerp\n"
    f"base_model: {CHAT}\n" + CURVES + BF16,
    "slerp-slices-of-their-own": f"""slices:
  - sources: [{{model: {CHAT}, layer_range: [0, 2]}}, {{model: {CODE}, layer_range: [0, 2]}}]
    parameters:
      t: 0.2
  - sources: [{{model: {CHAT}, layer_range: [2, {LAYERS}]}}, {{model: {CODE}, layer_range: [2, {LAYERS}]}}]
    parameters:
      t: [0.8, 0.4]
merge_method: slerp
base_model: {CHAT}
parameters:
  t: 0.5
dtype: float16
""",
    "dare-ties-relisted-base": models((BASE, "{weight: 0.2}"), (CHAT, "{weight: 0.2}"), (CODE, "{weight: 0.2}"))
    + f"merge_method: dare_ties\nbase_model: {BASE}\nparameters:\n  density: 0.3\ntokenizer:\n  source: union\nchat_template: auto\n" + ELECTS,
    "dare-ties-no-rescale": models((CHAT, "{weight: 1.0, density: 1.0}"), (MATH, "{weight: 0.846, density: 1.0}"))
    + f'base_model: "{BASE}"\nmerge_method: dare_ties\nparameters:\n  lambda: 1.0\n  rescale: false\n' + ELECTS,
    "dare-ties-first-layer": models((BASE,), (CHAT, "{weight: [0.22, 0.113, 0.113, 0.113], density: 0.61}"), (CODE, "{weight: [0.22, 0.113, 0.113, 0.113], density: 0.61}"))
    + f"merge_method: dare_ties\ntokenizer_source: union\nbase_model: {BASE}\nparameters: {{int8_mask: true}}\nname: long-name-v2\n" + ELECTS,
    "dare-linear": models((CHAT, "{weight: 0.5, density: 0.8}"), (CODE, "{weight: 0.5, density: 0.8}"))
    + f"merge_method: dare_linear\nbase_model: {BASE}\nparameters: {{normalize: 1.0, int8_mask: 1}}\n" + ELECTS,
    "ties-equal": models((CHAT, "{density: 0.5, weight: 0.5}"), (CODE, "{density: 0.5, weight: 0.5}"))
    + f"merge_method: ties\nbase_model: {BASE}\nparameters:\n  normalize: no\n  int8_mask: yes\n" + ELECTS,
    "ties-lambda": models((CHAT, "{density: 0.4, weight: 0.6}"), (MATH, "{density: 0.4, weight: 0.4}"))
    + f"merge_method: ties\nbase_model: {BASE}\nparameters:\n  normalize: false\n  lambda: 1.1\n" + ELECTS,
    "ties-stray-parameters": models((CHAT, "{density: 0.6, weight: 0.4}"), (CODE, "{density: 0.6, weight: 0.6}"))
    + f'merge_method: ties\nbase_model: {BASE}\nparameters:\n  int8_mask: true\n  dtype: bfloat16\n  interference: "cosine"\n' + ELECTS,
    "task-arithmetic-base-first": models((BASE,), (CHAT, "{weight: 1.0}")) + f"merge_method: task_arithmetic\nbase_model: {BASE}\ndtype: float16\n",
    "task-arithmetic-taken-away": models((CHAT, "{weight: 1.0}"), (CODE, "{weight: -0.5}"), (MATH, "{weight: 0.35}"))
    + f"merge_method: task_arithmetic\nbase_model: {BASE}\nparameters:\n  lambda: 0.8\n" + BF16,
    "task-arithmetic-anchors": f"""shared: &weights
  weight:
    - {{filter: v_proj, value: [1, 0]}}
    - {{filter: down_proj, value: 0.3}}
    - value: 0.6
merge_method: task_arithmetic
base_model: {BASE}
models:
  - model: {CHAT}
    parameters: *weights
  - model: {CODE}
    parameters:
      <<: *weights
      density: 1
parameters: {{normalize: true}}
dtype: bfloat16
""",
    "linear-averages": models((CHAT, "{weight: 0.4}"), (CODE, "{weight: 0.3}"), (MATH, "{weight: 0.3}")) + f"merge_method: linear\nparameters: {{normalize: true}}\ntokenizer_source: {CODE}\n" + BF16,
    "linear-tokens": f"""merge_method: linear
models:
  - model: {BASE}
    parameters: {{weight: 0.1}}
  - model: {CHAT}
    parameters: {{weight: 1}}
  - model: {{model: {{path: {MATH}, revision: main}}}}
    parameters: {{weight: 1}}
dtype: torch.float32
tokenizer:
  source: base
  tokens:
    a: {{source: {CHAT}, force: true}}
base_model: {BASE}
chat_template: chatml
""",
    "linear-two-documents": f"name: half\nmerge_method: linear\n" + models((CHAT, "{weight: 0.5}"), (CODE, "{weight: 0.5}")) + "dtype: float32\n---\n"
    + f"merge_method: slerp\nbase_model: half\nmodels:\n  - model: half\n  - model: {MATH}\nparameters: {{t: 0.4}}\ndtype: float32\n",
    "stock-members": f"models:\n  - model: {CHAT}\n  - model: {CODE}\n  - model: {MATH}\nmerge_method: model_stock\nbase_model: {BASE}\n" + BF16,
    "stock-base-among-them": f"base_model: {CHAT} # the base\nmerge_method: model_stock\ndtype: bfloat16\nmodels:\n  - model: {CODE} # code\n  - model: {CHAT} # itself\n  - model: {MATH}\n",
    "stock-slices": f"slices:\n  - sources:\n" + "".join(f"      - {{model: {m}, layer_range: [0, {LAYERS}]}}\n" for m in (CHAT, CODE, MATH)) + f"merge_method: model_stock\nbase_model: {CHAT}\n" + BF16,
    "stock-weights-unread": "dtype: float32\nout_dtype: bfloat16\nmerge_method: model_stock\n" + f"base_model: {BASE}\n"
    + models((CHAT, "{weight: [{filter: mlp, value: [2, 1]}, {value: 1}]}"), (CODE, "{weight: [{filter: mlp, value: [1, 2]}, {value: 1}]}")) + "parameters: {filter_wise: false}\n",
    "adapters-linear": models((f"{BASE}+{STORY}", "{weight: 0.7}"), (f"{BASE}+{POEM}", "{weight: 0.3}")) + "merge_method: linear\ndtype: float32\n",
    "adapters-task-arithmetic": f"base_model: {BASE}\nmerge_method: task_arithmetic\n" + models((f"{CHAT}+{STORY}", "{weight: 0.5}"), (CODE, "{weight: 0.5}")) + "dtype: float32\n",
    "adapters-long-form": f"base_model: {{model: {BASE}, lora: {POEM}}}\nmerge_method: model_stock\nmodels:\n  - model: {{model: {BASE}, lora: {STORY}}}\n  - model: {CHAT}\ndtype: float32\n",
    "nuslerp": f"merge_method: nuslerp\n" + models((CHAT, "{weight: 0.4}"), (CODE, "{weight: 0.6}")) + BF16,
    "karcher": f"merge_method: karcher\nmodels:\n  - model: {CHAT}\n  - model: {CODE}\n  - model: {MATH}\nparameters:\n  max_iter: 20\n  tol: 1e-6\n" + ELECTS,
    "sce": f"models:\n  - model: {CHAT}\n  - model: {CODE}\nmerge_method: sce\nbase_model: {BASE}\nparameters:\n  select_topk: 0.5\n  int8_mask: true\n" + ELECTS,
    "breadcrumbs": models((CHAT, "{weight: 0.5, density: 0.9, gamma: 0.01}"), (MATH, "{weight: 0.5, density: 0.9, gamma: 0.02}")) + f"merge_method: breadcrumbs\nbase_model: {BASE}\n" + ELECTS,
    "della": models((CHAT, "{weight: 0.5, density: 0.7}"), (CODE, "{weight: 0.4, density: 0.6}")) + f"merge_method: della\nbase_model: {BASE}\nparameters:\n  epsilon: 0.05\n  lambda: 1.0\n" + ELECTS,
    "della-linear-word-for-each": models((CHAT, '{weight: 0.5, density: 0.7, epsilon: "0.1"}'), (CODE, "{weight: 0.4, density: 0.6, epsilon: 0.1}"))
    + f"merge_method: della_linear\nbase_model: {BASE}\n" + ELECTS,
    "longer-by-copies": stack((CHAT, 0, 3), (CHAT, 1, 4)) + "merge_method: passthrough\n" + BF16,
    "longer-silent-layers": f"""slices:
  - sources:
      - model: {CHAT}
        layer_range: [0, 3]
  - sources:
      - model: {CHAT}
        layer_range: [2, 4]
        parameters:
          scale:
            - filter: o_proj
              value: 0.0
            - filter: down_proj
              value: 0.0
            - value: 1.0
merge_method: passthrough
dtype: bfloat16
""",
    "longer-with-a-revision-astray": f"slices:\n  - sources:\n    - model: {CHAT}\n      revision: main\n      layer_range: [0, 3]\n  - sources:\n    - model: {CODE}\n      layer_range: [1, 4]\nmerge_method: passthrough\n" + BF16,
    "shorter": stack((MATH, 0, 1), (MATH, 3, 4)) + "merge_method: passthrough\n" + BF16,
}


def tokenizer(out, template):
    (out / "tokenizer.json").write_text(json.dumps(dict(
        version="1.0", truncation=None, padding=None, added_tokens=[dict(id=len(TOKENS) + i, content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True) for i, t in enumerate(("<s>", "</s>"))],
        normalizer=None, pre_tokenizer=None, post_processor=None, decoder=None,
        model=dict(type="BPE", dropout=None, unk_token="<unk>", continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False, byte_fallback=False,
                   ignore_merges=False, vocab={t: i for i, t in enumerate(TOKENS)}, merges=[]))) + "\n")
    config = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>", unk_token="<unk>", **({"chat_template": template} if template else {}))
    (out / "tokenizer_config.json").write_text(json.dumps(config) + "\n")


def family():
    size = dict(hidden_size=8, num_hidden_layers=LAYERS, num_attention_heads=2, num_key_value_heads=1, head_dim=4, intermediate_size=12, vocab_size=len(TOKENS) + 2, max_position_embeddings=16)
    config = dict(model_type="llama", architectures=["LlamaForCausalLM"], tie_word_embeddings=False, rms_norm_eps=1e-6, dtype="float32", bos_token_id=len(TOKENS), eos_token_id=len(TOKENS) + 1, **size)
    g = torch.Generator().manual_seed(11)
    base = {n: torch.randn(t.shape, generator=g) for n, t in LlamaForCausalLM(LlamaConfig(**config)).state_dict().items()}
    for name, step, template in ((BASE, 0, None), (CHAT, 0.05, CHATML), (CODE, 0.1, PLAIN), (MATH, 0.02, PLAIN)):
        out = ROOT / name
        out.mkdir(parents=True)
        save_file({n: t + step * torch.randn(t.shape, generator=g) for n, t in base.items()}, out / "model.safetensors", {"format": "pt"})
        (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        tokenizer(out, template)
    for name, targets in ((STORY, ["q_proj", "v_proj"]), (POEM, ["down_proj"])):
        out = ROOT / name
        out.mkdir(parents=True)
        weights = {}
        for key, t in base.items():
            if any(f".{target}." in key for target in targets):
                rows, columns = t.shape
                stem = f"base_model.model.{key.removesuffix('.weight')}"
                weights[f"{stem}.lora_A.weight"] = torch.randn(2, columns, generator=g)
                weights[f"{stem}.lora_B.weight"] = 0.1 * torch.randn(rows, 2, generator=g)
        save_file(weights, out / "adapter_model.safetensors", {"format": "pt"})
        (out / "adapter_config.json").write_text(json.dumps(dict(peft_type="LORA", r=2, lora_alpha=4, target_modules=targets, task_type="CAUSAL_LM", base_model_name_or_path=BASE, bias="none")) + "\n")


def merge(text, scratch):
    """All documents of a file; the last is the result."""
    made = {}
    for i, document in enumerate(yaml.safe_load_all(text)):
        name = document.pop("name", None)
        known = json.loads(json.dumps(document))
        for key, path in made.items():
            known = json.loads(json.dumps(known).replace(f'"{key}"', json.dumps(path)))
        # Keys that mergekit's model of a file has not are passed over by it.
        out = str(Path(scratch) / str(i))
        run_merge(MergeConfiguration.model_validate(known), out, MergeOptions(random_seed=0, cuda=False, write_model_card=False, lora_merge_cache=str(Path(scratch) / "lora")))
        if name:
            made[name] = out
    return Path(out)


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    family()
    os.chdir(ROOT)
    for name, text in FILES.items():
        Path(f"{name}.yml").write_text(text)
        with tempfile.TemporaryDirectory() as scratch:
            out = merge(text, scratch)
            made = {}
            for shard in sorted(out.glob("*.safetensors")):
                made.update(load_file(shard))
            save_file(made, f"{name}.safetensors")
            template = out / "chat_template.jinja"
            config = json.loads((out / "config.json").read_text())
            facts = dict(layers=config["num_hidden_layers"], **({"template": template.read_text()} if template.exists() else {}))
            Path(f"{name}.json").write_text(json.dumps(facts) + "\n")
        print(name, len(made), facts["layers"], "template" in facts)


main()
