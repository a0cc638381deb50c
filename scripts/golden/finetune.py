"""Losses along five steps of fine-tuning in PyTorch: all weights of a small BERT, and LoRA (PEFT) beside them.

    .venv/bin/pip install peft && .venv/bin/python scripts/golden/finetune.py

Starts from test/golden/models/bert-relu/a with its head, on that case's batch; writes test/golden/finetune.json.
"""
import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import peft
import torch
import transformers as tf

ROOT = Path(__file__).resolve().parents[2]
CASE = ROOT / "test" / "golden" / "models" / "bert-relu"
golden = json.loads((CASE / "golden.json").read_text())
texts = [row["ids"] for row in golden["rows"]]
length = max(map(len, texts))
ids = torch.tensor([t + [0] * (length - len(t)) for t in texts])
mask = torch.tensor([[1] * len(t) + [0] * (length - len(t)) for t in texts])
labels = torch.tensor(golden["labels"])
LR, DECAY, CLIP, STEPS = 1e-2, 0.1, 0.5, 5


def run(model):
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": [p for p in trained if p.ndim >= 2], "weight_decay": DECAY}, {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0}], lr=LR)
    losses = []
    for _ in range(STEPS):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
    return losses


start = lambda: tf.BertForSequenceClassification.from_pretrained(CASE / "a").eval()
full = run(start())
model = peft.get_peft_model(start(), peft.LoraConfig(r=3, lora_alpha=6, target_modules=["query", "value"], modules_to_save=["classifier"], task_type="SEQ_CLS", lora_dropout=0)).eval()
generator = torch.Generator().manual_seed(1)
factors = {}
with torch.no_grad():
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
            factors[name.replace("base_model.model.bert.", "").replace(".default.weight", "")] = {"shape": list(p.shape), "values": p.flatten().tolist()}
lora = run(model)
out = {"lr": LR, "weightDecay": DECAY, "clip": CLIP, "full": full, "lora": lora, "factors": factors}
(ROOT / "test" / "golden" / "finetune.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
print(full, lora)
