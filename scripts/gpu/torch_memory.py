"""A merge trained with stacked deltas in PyTorch, under a cap on the card's memory: what it takes, or that it runs out.

    torch_memory.py CONFIG.json EXPERTS CAP_BYTES cuda|cpu

The last line on stdout is JSON: {"peak": bytes, "ms": a step} or {"out_of_memory": true}.
"""
import json
import sys
import time

import torch
from torch.func import functional_call
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

config = json.load(open(sys.argv[1]))
k, cap, device = int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
rows, length = 4, 64


def main():
    if device == "cuda":
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap / torch.cuda.get_device_properties(0).total_memory))
    encoder = config["model_type"] == "bert"
    with torch.device(device):
        model = (BertForSequenceClassification(BertConfig(**config)) if encoder else LlamaForCausalLM(LlamaConfig(**config))).eval()
    base = {name: value.detach() for name, value in model.named_parameters() if not name.startswith("classifier.")}
    deltas = {name: 0.003 * torch.randn(k, *value.shape, device=device) for name, value in base.items()}
    raw = torch.full((len(base), k), 0.3, device=device, requires_grad=True)
    optimizer = torch.optim.AdamW([raw], lr=0.03, weight_decay=0.0)
    ids = torch.randint(10, 3000, (k, rows, length), device=device)
    labels = torch.randint(0, 2, (k, rows), device=device)

    def step():
        optimizer.zero_grad()
        gated = torch.tanh(raw)
        merged = {name: value + (gated[i] @ deltas[name].view(k, -1)).view(value.shape) for i, (name, value) in enumerate(base.items())}
        total = 0
        for task in range(k):
            out = functional_call(model, merged, (), {"input_ids": ids[task], "labels": labels[task] if encoder else ids[task]})
            total = total + out.loss
        total.backward()
        optimizer.step()
        return total.item()

    step()
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) * 1000


try:
    ms = main()
    print(json.dumps({"peak": torch.cuda.max_memory_reserved() if device == "cuda" else 0, "ms": ms}))
except torch.OutOfMemoryError:
    print(json.dumps({"out_of_memory": True}))
