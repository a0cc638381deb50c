"""Makes test/golden/tokenizers/: models with unlike vocabularies, mergekit files, and what mergekit makes of them.

    .venv/bin/pip install mergekit==0.1.5
    .venv/bin/python scripts/golden/tokenizers_with_mergekit.py

mergekit numbers the tokens that a union adds in an order that changes from run to run: results are compared token by token,
by the ids that NAME.json gives.
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
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[2] / "test" / "golden" / "tokenizers"

# Tokens of the model, and those added to it; rows beyond them are padding.
VOCABULARIES = {
    "base": ("<unk> a b c d".split(), ["<s>", "</s>"], 3),
    "a": ("<unk> a b c d".split(), ["<s>", "</s>", "<|im_start|>"], 0),
    "b": ("<unk> c b a e".split(), ["</s>", "<s>", "<|im_end|>"], 1),
    "c": ("<unk> f a e b".split(), ["<s>", "</s>", "<|im_start|>", "<|im_end|>"], 0),
}


def model(folder, label, tied):
    plain, special, padding = VOCABULARIES[label]
    out = folder / label
    out.mkdir(parents=True)
    rows = len(plain) + len(special) + padding
    config = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=4, num_hidden_layers=1, num_attention_heads=1,
                  num_key_value_heads=1, head_dim=4, intermediate_size=4, max_position_embeddings=16, tie_word_embeddings=tied, vocab_size=rows, rms_norm_eps=1e-6,
                  dtype="float32", bos_token_id=len(plain) + special.index("<s>"), eos_token_id=len(plain) + special.index("</s>"))
    net = LlamaForCausalLM(LlamaConfig(**config))
    save_file({n: torch.randn(t.shape) for n, t in net.state_dict().items() if not (tied and n == "lm_head.weight")}, out / "model.safetensors", {"format": "pt"})
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    added = [dict(id=len(plain) + i, content=t, single_word=False, lstrip=False, rstrip=t == "<|im_end|>", normalized=False, special=True) for i, t in enumerate(special)]
    (out / "tokenizer.json").write_text(json.dumps(dict(
        version="1.0", truncation=None, padding=None, added_tokens=added, normalizer=None, pre_tokenizer=None, post_processor=None, decoder=None,
        model=dict(type="BPE", dropout=None, unk_token="<unk>", continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False, byte_fallback=False,
                   ignore_merges=False, vocab={t: i for i, t in enumerate(plain)}, merges=[]))) + "\n")
    (out / "tokenizer_config.json").write_text(json.dumps(dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>", unk_token="<unk>")) + "\n")


def files():
    three = [{"model": m, "parameters": {"weight": w}} for m, w in (("a", 1), ("b", 0.6), ("c", 0.3))]
    task = {"merge_method": "task_arithmetic", "base_model": "base", "models": three}
    linear = {"merge_method": "linear", "models": three}
    out = {
        "union": {**task, "tokenizer_source": "union"},
        "union-without-base": {**linear, "tokenizer_source": "union"},
        "base": {**task, "tokenizer_source": "base"},
        "of-another": {**task, "tokenizer_source": "b"},
        "of-another-without-base": {**linear, "tokenizer": {"source": "c"}},
        "block": {**task, "tokenizer": {"pad_to_multiple_of": 8}},
        "padded-base": {**task, "tokenizer": {"source": "base", "pad_to_multiple_of": 4}},
        "tokens": {**task, "tokenizer": {"source": "union", "tokens": {
            "<|im_start|>": {"source": {"kind": "model_token", "model": "b", "token": "<s>"}, "force": True},
            "<|im_end|>": {"source": "c"},
            "d": {"source": {"kind": "zero"}},
            "f": {"source": {"kind": "model_token", "model": "a", "token_id": 2}},
            "new": {"source": {"kind": "model_token", "model": "base", "token": "a"}},
        }}},
        "ties": {**task, "merge_method": "ties", "parameters": {"density": 0.7}, "tokenizer_source": "union"},
        "one-tokenizer": {"merge_method": "linear", "models": [{"model": m, "parameters": {"weight": 1}} for m in ("base", "a")], "base_model": "base", "tokenizer_source": "base"},
    }
    for value in out.values():
        value["dtype"] = "float32"
    return out


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    torch.manual_seed(0)
    for name in ("untied", "tied"):
        for label in VOCABULARIES:
            model(ROOT / name, label, name == "tied")
    for name in ("untied", "tied"):
        # Each in a process of its own: mergekit remembers models by their names, which are the same in both.
        if os.fork():
            if os.wait()[1]:
                raise SystemExit(f"{name} failed")
            continue
        os.chdir(ROOT / name)
        for label, config in files().items():
            Path(f"{label}.yml").write_text(yaml.safe_dump(config, sort_keys=False))
            with tempfile.TemporaryDirectory() as temporary:
                run_merge(MergeConfiguration.model_validate(config), temporary, MergeOptions(random_seed=0, cuda=False, write_model_card=False))
                made = load_file(Path(temporary) / "model.safetensors")
                tokenizer = AutoTokenizer.from_pretrained(temporary)
                size = json.loads((Path(temporary) / "config.json").read_text())["vocab_size"]
            save_file(made, f"{label}.safetensors")
            ids = dict(sorted(tokenizer.get_vocab().items(), key=lambda one: one[1]))
            added = sorted(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
            Path(f"{label}.json").write_text(json.dumps(dict(vocab_size=size, ids=ids, special=added)) + "\n")
            print(name, label, size, list(ids))
        os._exit(0)


main()
