"""Quantised models and what they stand for: test/golden/quantised (a folder each, and NAME.safetensors beside it).

    python scripts/golden/quantised.py

Needs bitsandbytes 0.50.2 beside requirements.txt; its CPU kernel is wrong where rows are no multiple of 64. 4 and 8 bits are bitsandbytes's own; FP8 is torch's, scaled as DeepSeek's and
Qwen's models are (a number for each block) and as compressed-tensors and fbgemm do it (a number for each row).
"""
import json
import shutil
from pathlib import Path

import bitsandbytes.functional as bnb
import torch
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

out = Path(__file__).resolve().parents[2] / "test" / "golden" / "quantised"
shutil.rmtree(out, ignore_errors=True)
torch.manual_seed(0)
config = LlamaConfig(vocab_size=8, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=16)
model = LlamaForCausalLM(config).to(torch.bfloat16)
model.save_pretrained(out / "plain")
plain = load_file(out / "plain" / "model.safetensors")


# Two weights are enough to see that a layout is read right.
shown = ("self_attn.q_proj.weight", "mlp.down_proj.weight")


def tidy(folder):
    (folder / "generation_config.json").unlink(missing_ok=True)


tidy(out / "plain")
ways = {
    "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "fp4": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
    "int8": dict(load_in_8bit=True),
}
for name, how in ways.items():
    loaded = LlamaForCausalLM.from_pretrained(out / "plain", quantization_config=BitsAndBytesConfig(**how), device_map="cpu", dtype=torch.bfloat16)
    loaded.save_pretrained(out / name)
    tidy(out / name)
    right = {}
    for key, module in loaded.named_modules():
        kind = type(module).__name__
        if kind == "Linear4bit":
            right[f"{key}.weight"] = bnb.dequantize_4bit(module.weight.data, module.weight.quant_state).to(torch.bfloat16)
        elif kind == "Linear8bitLt":
            right[f"{key}.weight"] = bnb.int8_vectorwise_dequant(module.weight.data, module.weight.SCB).to(torch.bfloat16)
    save_file({k: v.contiguous() for k, v in right.items() if k.endswith(shown)}, out / f"{name}.safetensors")


def fp8(name, scales_of, suffix, quantization, dtype=torch.float8_e4m3fn):
    folder = out / name
    folder.mkdir()
    stored, right = {}, {}
    for key, value in plain.items():
        if not key.endswith("_proj.weight"):
            stored[key] = value
            continue
        scale, spread = scales_of(value.float(), 448.0 if dtype == torch.float8_e4m3fn else 57344.0)
        stored[key] = (value.float() / spread(scale)).to(dtype)
        stored[key.removesuffix("weight") + suffix] = scale
        if key.endswith(shown):
            right[key] = (stored[key].float() * spread(scale).float()).to(torch.bfloat16)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    settings = json.loads((out / "plain" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "quantization_config": quantization}, indent=2) + "\n")
    save_file(right, out / f"{name}.safetensors")


def blocks(rows, columns):
    def of(value, top):
        r, c = value.shape
        down, across = -(-r // rows), -(-c // columns)
        scale = torch.stack([torch.stack([value[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns].abs().max() for j in range(across)]) for i in range(down)]) / top
        return scale, lambda s: s.repeat_interleave(rows, 0)[:r].repeat_interleave(columns, 1)[:, :c]

    return of


def by_row(value, top):
    scale = (value.abs().amax(1, keepdim=True) / top).to(torch.bfloat16)
    return scale, lambda s: s.float()


def whole(value, top):
    return value.abs().max() / top, lambda s: s


fp8("fp8", blocks(20, 24), "weight_scale_inv", {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [20, 24]})
fp8("fp8-rows", by_row, "weight_scale", {"quant_method": "compressed-tensors", "format": "float-quantized"})
fp8("fp8-whole", whole, "weight_scale", {"quant_method": "modelopt", "quant_algo": "FP8"}, torch.float8_e5m2)
