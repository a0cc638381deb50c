"""Makes test/golden/mergekit/: small families, mergekit files, and what mergekit itself makes of them.

    .venv/bin/pip install mergekit==0.1.5
    .venv/bin/python scripts/golden/with_mergekit.py

mergekit draws what DARE and DELLA drop with torch.bernoulli. Here that function is exchanged for train-merge's own draws, so
that both drop the same; everything else is mergekit's.
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
from mergekit.merge_methods import generalized_task_arithmetic as gta
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from draws import draws

ROOT = Path(__file__).resolve().parents[2] / "test" / "golden" / "mergekit"
# --- the same draws in mergekit ---
now = {}
merge_group, thin = gta.GeneralizedTaskArithmeticMerge.merge_group, gta.sparsify


def named_group(self, group, /, **parameters):
    now.update(tensor=group.metadata.name, labels=[e.id.model.path for e in group.non_base], at=0)
    return merge_group(self, group, **parameters)


def named_thin(tensor, density, method, **rest):
    now.update(label=now["labels"][now["at"]], method=method.value)
    now["at"] += 1
    return thin(tensor, density=density, method=method, **rest)


def bernoulli(probability):
    kind = {"random": "dare", "della_magprune": "della"}[now["method"]]
    u = draws(probability.numel(), 0, kind, now["tensor"], now["label"]).reshape(probability.shape)
    p = probability.double()
    # DARE is asked for what to drop, DELLA for what to keep.
    keep = u >= (1 - p) * 2**32 if kind == "dare" else u < p * 2**32
    return keep.to(probability.dtype)


# mergekit 0.1.5 stumbles over optional tensors (it adds a tuple to a list): BERT's position_ids, which these models have not.
plan_tensor = MergePlanner.plan_tensor
MergePlanner.plan_tensor = lambda self, weight, *rest, **named: None if weight.name.endswith("position_ids") else plan_tensor(self, weight, *rest, **named)
gta.GeneralizedTaskArithmeticMerge.merge_group = named_group
gta.sparsify = named_thin
torch.bernoulli = bernoulli


def family(name, model, dtype):
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    g = torch.Generator().manual_seed(5)
    base = {n: torch.randn(t.shape, generator=g) for n, t in model.state_dict().items() if t.is_floating_point()}
    for label in ("base", "a", "b", "c"):
        out = folder / label
        out.mkdir(parents=True)
        step = {"base": 0, "a": 0.05, "b": 0.1, "c": 0.02}[label]
        moved = {n: (t + step * torch.randn(t.shape, generator=g)).to(dtype) for n, t in base.items()}
        save_file(moved, out / "model.safetensors", {"format": "pt"})
        config = model.config.to_dict()
        config["dtype"] = str(dtype).split(".")[1]
        keep = {"model_type", "architectures", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "vocab_size",
                "max_position_embeddings", "type_vocab_size", "hidden_act", "dtype", "tie_word_embeddings", "rms_norm_eps",
                "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "feed_forward_proj", "decoder_start_token_id"}
        config["architectures"] = [type(model).__name__]
        (out / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k in keep}, indent=1) + "\n")


def modules():
    """What mergekit takes an encoder and a decoder apart into; parameters of a module stand between a model's and the file's."""
    one = lambda m, w=None: {"model": m, **({} if w is None else {"parameters": {"weight": w}})}
    return {"modules": {"merge_method": "linear", "dtype": "float32", "parameters": {"weight": 0.5}, "modules": {
        "encoder": {"models": [one("a", 1), one("b", [0, 1])]},
        "decoder": {"models": [one("b"), one("c")], "parameters": {"weight": [{"filter": "EncDecAttention", "value": [0.2, 0.6]}, {"value": 0.3}]}},
        "shared": {"models": [one("a"), one("c", 1.5)]},
    }}}


def files(llama):
    one = lambda **p: [{"model": m, **({"parameters": {k: v[i] for k, v in p.items()}} if p else {})} for i, m in enumerate("abc")]
    task = lambda method, **p: {"merge_method": method, "base_model": "base", "models": one(weight=[1.0, 0.5, 0.7]), "parameters": p}
    attention, mlp = ("self_attn", "mlp") if llama else ("attention", "intermediate")
    out = {
        "linear": {"merge_method": "linear", "models": one(weight=[1, 0.3, 0.2])},
        "linear-gradient": {"merge_method": "linear", "models": one(weight=[[{"filter": attention, "value": [0, 0.5, 1]}, {"value": 0.4}], [1.0, 0.0], 0.3]), "parameters": {"normalize": False}},
        "slerp": {"merge_method": "slerp", "base_model": "a", "models": [{"model": "a"}, {"model": "b"}], "parameters": {"t": [{"filter": attention, "value": [0, 0.5, 0.3, 0.7, 1]}, {"filter": mlp, "value": [1, 0.5, 0.7, 0.3, 0]}, {"value": 0.5}]}},
        "nuslerp": {"merge_method": "nuslerp", "base_model": "base", "models": one(weight=[0.3, 0.6, 0])[:2]},
        "nuslerp-rows": {"merge_method": "nuslerp", "models": one(weight=[0.3, 0.6, 0])[:2], "parameters": {"nuslerp_flatten": False}},
        "nuslerp-columns": {"merge_method": "nuslerp", "base_model": "base", "models": one(weight=[0.3, 0.6, 0])[:2], "parameters": {"nuslerp_flatten": False, "nuslerp_row_wise": True}},
        "karcher": {"merge_method": "karcher", "models": one()},
        "model-stock": {"merge_method": "model_stock", "base_model": "base", "models": one()},
        "model-stock-rows": {"merge_method": "model_stock", "base_model": "base", "models": one(), "parameters": {"filter_wise": True}},
        "sce": {"merge_method": "sce", "base_model": "base", "models": one()},
        "sce-selected": {"merge_method": "sce", "base_model": "base", "models": one(), "parameters": {"select_topk": 0.3, "int8_mask": True}},
        "task-arithmetic": task("task_arithmetic", normalize=True),
        "task-arithmetic-lambda": task("task_arithmetic", **{"lambda": 0.6}),
        "ties": {"merge_method": "ties", "base_model": "base", "models": one(weight=[1.0, 0.5, 0.7], density=[[0.9, 0.3], 0.5, 0.2]), "parameters": {"normalize": True, "int8_mask": True}},
        "ties-rescaled": task("ties", density=0.4, normalize=False, rescale=True),
        "dare-ties": task("dare_ties", density=0.5),
        "dare-linear": task("dare_linear", density=0.3, rescale=False),
        "breadcrumbs": task("breadcrumbs", density=0.7, gamma=0.1),
        "breadcrumbs-ties": task("breadcrumbs_ties", density=0.5, gamma=0.3),
        "della": task("della", density=0.6, epsilon=0.2),
        "della-linear": task("della_linear", density=0.5, epsilon=0.1, **{"lambda": 0.8}),
        "nearswap": {"merge_method": "nearswap", "base_model": "base", "models": one()[:1], "parameters": {"t": 0.03}},
        "multislerp": {"merge_method": "multislerp", "base_model": "base", "models": one(weight=[0.5, 1.0, [0.2, 0.9]])},
        "multislerp-models": {"merge_method": "multislerp", "models": one(weight=[0.5, 0.3, 0.1]), "parameters": {"normalize_weights": False}},
        "ram": {"merge_method": "ram", "base_model": "base", "models": one(), "parameters": {"epsilon": 0.05}},
        "ramplus-tl": {"merge_method": "ramplus_tl", "base_model": "base", "models": one(), "parameters": {"epsilon": 0.04, "r": 0.3, "alpha": 0.5}},
        "arcee-fusion": {"merge_method": "arcee_fusion", "base_model": "base", "models": one()[:1]},
        "passthrough": {"merge_method": "passthrough", "models": [{"model": "b", "parameters": {"scale": [{"filter": mlp, "value": 0.5}, {"value": 1.0}]}}]},
    }
    if llama:
        out["slices"] = {"merge_method": "passthrough", "slices": [{"sources": [{"model": "a", "layer_range": [0, 2]}]}, {"sources": [{"model": "b", "layer_range": [1, 3]}]}]}
        out["slices-linear"] = {"merge_method": "linear", "slices": [{"sources": [{"model": "a", "layer_range": [0, 2], "parameters": {"weight": [0.2, 0.8]}}, {"model": "c", "layer_range": [1, 3], "parameters": {"weight": 0.5}}]}, {"sources": [{"model": "b", "layer_range": [2, 3]}], "parameters": {"weight": 1}}]}
        for value in out.values():
            value.update(dtype="float32", out_dtype="bfloat16")
        # Computed in bfloat16 by mergekit (in float32 by train-merge): no election, which a rounding could turn over.
        out["linear-in-bf16"] = {"merge_method": "linear", "models": one(weight=[1, 0.3, 0.2]), "dtype": "bfloat16"}
        out["task-arithmetic-in-bf16"] = {**task("task_arithmetic"), "dtype": "bfloat16"}
    else:
        for value in out.values():
            value["dtype"] = "float32"
    return out


def main():
    torch.manual_seed(0)
    # float32 inputs: in bfloat16 magnitudes of differences tie, and which of them mergekit's unstable sort keeps is chance.
    family("bert", BertModel(BertConfig(hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, vocab_size=16, max_position_embeddings=16)), torch.float32)
    family("llama", LlamaForCausalLM(LlamaConfig(hidden_size=8, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, intermediate_size=16, vocab_size=16, max_position_embeddings=16, tie_word_embeddings=False)), torch.float32)
    family("t5", T5ForConditionalGeneration(T5Config(d_model=8, d_kv=4, d_ff=12, num_layers=3, num_decoder_layers=2, num_heads=2, vocab_size=16, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0)), torch.float32)
    for name in ("bert", "llama", "t5"):
        # Each in a process of its own: mergekit remembers models by their names, which are the same in both.
        if os.fork():
            if os.wait()[1]:
                raise SystemExit(f"{name} failed")
            continue
        folder = ROOT / name
        os.chdir(folder)
        for label, config in (modules() if name == "t5" else files(name == "llama")).items():
            (folder / f"{label}.yml").write_text(yaml.safe_dump(config, sort_keys=False))
            with tempfile.TemporaryDirectory() as temporary:
                run_merge(MergeConfiguration.model_validate(config), temporary, MergeOptions(copy_tokenizer=False, random_seed=0, cuda=False, write_model_card=False))
                made = load_file(Path(temporary) / "model.safetensors")
            save_file(made, folder / f"{label}.safetensors")
            print(name, label, len(made))
        os._exit(0)


if __name__ == "__main__":
    main()
