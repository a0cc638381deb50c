"""Loads an adapter that train-merge wrote into PEFT, on its base, and compares what it gives with a model that train-merge wrote.

    python scripts/golden/check_adapter.py BASE ADAPTER MODEL      # a merge with --write adapter and the same with --write model
"""
import sys

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

base, adapter, model = sys.argv[1:]
kind = AutoConfig.from_pretrained(base).model_type
loader = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM if kind in ("llama", "mistral", "qwen2", "gpt2") else AutoModel
adapted = PeftModel.from_pretrained(loader.from_pretrained(base, dtype=torch.float32), adapter).merge_and_unload().state_dict()
written = loader.from_pretrained(model, dtype=torch.float32).state_dict()
start = loader.from_pretrained(base, dtype=torch.float32).state_dict()
change = max((written[k] - start[k]).abs().max().item() for k in start if start[k].is_floating_point())
worst = max((adapted[k] - written[k]).abs().max().item() for k in written if written[k].is_floating_point())
print(f"largest difference {worst:.2e}, {worst / change:.1e} of the largest change")
sys.exit(worst / change > 1e-5)
