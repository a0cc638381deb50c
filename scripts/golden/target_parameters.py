"""What PEFT makes of adapters on stacked experts (target_parameters): test/golden/experts (base, adapter, merged; by model).

    python scripts/golden/target_parameters.py

Mixtral and Qwen3-MoE are stored an expert at a time, Qwen3-MoE once more as transformers 5 holds it, gpt-oss stacked and
[in, out].
"""
import json
import shutil
from pathlib import Path

import peft
import torch
from transformers import GptOssConfig, GptOssForCausalLM, MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

out = Path(__file__).resolve().parents[2] / "test" / "golden" / "experts"
shutil.rmtree(out, ignore_errors=True)
common = dict(vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, num_experts_per_tok=1)
models = {
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**common, intermediate_size=6, num_local_experts=2)),
    "qwen": lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**common, intermediate_size=6, moe_intermediate_size=6, num_experts=3, head_dim=4)),
    "gpt-oss": lambda: GptOssForCausalLM(GptOssConfig(**common, intermediate_size=6, num_local_experts=2, head_dim=4)),
    # Both sides of a matrix alike: only the model's kind says which is which.
    "gpt-oss-square": lambda: GptOssForCausalLM(GptOssConfig(**common, intermediate_size=8, num_local_experts=2, head_dim=4)),
}
targets = {
    "mixtral": dict(target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
    "qwen": dict(target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], use_rslora=True),
    "gpt-oss": dict(target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.router.weight"]),
    "gpt-oss-square": dict(target_parameters=["mlp.experts.down_proj"]),
}


def tidy(folder):
    for name in ("generation_config.json", "README.md"):
        (folder / name).unlink(missing_ok=True)


for name, make in models.items():
    torch.manual_seed(0)
    model = make()
    model.save_pretrained(out / name / "base")
    tidy(out / name / "base")
    if name == "qwen":
        model.save_pretrained(out / name / "stacked", save_original_format=False)
        tidy(out / name / "stacked")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj"], task_type="CAUSAL_LM", **targets[name]))
    with torch.no_grad():
        for key, p in adapted.named_parameters():
            if "lora_" in key:
                p.copy_(0.3 * torch.randn_like(p))
    adapted.save_pretrained(out / name / "adapter")
    tidy(out / name / "adapter")
    path = out / name / "adapter" / "adapter_config.json"
    settings = json.loads(path.read_text())
    for key in ("target_modules", "target_parameters"):
        settings[key] = sorted(settings[key])
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    adapted.merge_and_unload().save_pretrained(out / name / "merged")
    tidy(out / name / "merged")
    (out / name / "merged" / "config.json").unlink()
