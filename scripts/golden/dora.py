"""What PEFT makes of a DoRA adapter: test/golden/dora (base, adapter, and the weights of merge_and_unload).

    python scripts/golden/dora.py
"""
import json
import shutil
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

out = Path(__file__).resolve().parents[2] / "test" / "golden" / "dora"
shutil.rmtree(out, ignore_errors=True)
torch.manual_seed(0)
config = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16)
base = LlamaForCausalLM(config).eval()
base.save_pretrained(out / "base")
adapted = peft.get_peft_model(base, peft.LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"))
with torch.no_grad():
    for name, p in adapted.named_parameters():
        if "lora_magnitude" in name:
            p.mul_(1 + 0.3 * torch.randn_like(p))
        elif "lora_" in name:
            p.copy_(0.3 * torch.randn_like(p))
adapted.save_pretrained(out / "adapter")
(out / "adapter" / "README.md").unlink(missing_ok=True)
(out / "base" / "generation_config.json").unlink(missing_ok=True)
path = out / "adapter" / "adapter_config.json"
settings = json.loads(path.read_text())
settings["target_modules"] = sorted(settings["target_modules"])
path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
merged = adapted.merge_and_unload()
save_file({k: v.contiguous() for k, v in merged.state_dict().items()}, out / "merged.safetensors")
