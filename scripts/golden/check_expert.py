"""Loads a classifier that `train-merge finetune` wrote into transformers (an adapter: into PEFT, on its base), and measures it.

    .venv/bin/python scripts/golden/check_expert.py EXPERT BASE DATA/<task>     # e.g. experts/trec6 checkpoints/minilm/base DATA/trec6
"""
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from transformers import AutoConfig, AutoModelForMultipleChoice, AutoModelForSequenceClassification, AutoTokenizer

expert, base, data = map(Path, sys.argv[1:])
rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
choices = "choices" in rows[0]
if choices:
    model = AutoModelForMultipleChoice.from_pretrained(expert)
elif (expert / "adapter_config.json").exists():
    import peft

    model = peft.PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(base, config=AutoConfig.from_pretrained(expert)), expert)
else:
    model = AutoModelForSequenceClassification.from_pretrained(expert)
model.eval()
tokenizer = AutoTokenizer.from_pretrained(base)
labels = [row["label"] if isinstance(row["label"], int) else model.config.label2id[row["label"]] for row in rows]
right = 0
with torch.no_grad():
    for at in range(0, len(rows), 50):
        part = rows[at: at + 50]
        if choices:
            pairs = [[row["text_a"] for row in part for _ in row["choices"]], [choice for row in part for choice in row["choices"]]]
            given = tokenizer(*pairs, padding=True, truncation=True, max_length=128, return_tensors="pt")
            logits = model(**{name: x.view(len(part), -1, x.shape[-1]) for name, x in given.items()}).logits
            right += sum(int(a) == b for a, b in zip(logits.argmax(-1), labels[at: at + 50]))
            continue
        texts = [[row["text_a"] for row in part]] + ([[row["text_b"] for row in part]] if "text_b" in part[0] else [])
        logits = model(**tokenizer(*texts, padding=True, truncation=True, max_length=128, return_tensors="pt")).logits
        right += sum(int(a) == b for a, b in zip(logits.argmax(-1), labels[at: at + 50]))
print(f"{100 * right / len(rows):.1f} % of {len(rows)} test examples")
