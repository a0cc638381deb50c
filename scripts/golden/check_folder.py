"""Loads a merged folder in transformers, as its card says, and compares it with what train-merge makes of it.

    .venv/bin/python scripts/golden/check_folder.py merged/mini-rte+cb+copa data/mini

Exits 1 where a logit differs by more than 1e-4 of the largest.
"""
import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer, BertForMultipleChoice, BertForSequenceClassification

folder, data = Path(sys.argv[1]), Path(sys.argv[2])
root = Path(__file__).resolve().parents[2]
count = 16
ours = json.loads(subprocess.run(["node", root / "dist/scripts/golden/logits.js", folder, data, str(count)], capture_output=True, check=True, text=True).stdout)
tokenizer = AutoTokenizer.from_pretrained(folder)
failed = False
for task in sorted(p.name for p in (folder / "heads").iterdir()):
    config = AutoConfig.from_pretrained(folder / "heads" / task)
    rows = [json.loads(line) for line in (data / task / "test.jsonl").read_text().splitlines()[:count]]
    choice = "choices" in rows[0]
    kind = BertForMultipleChoice if choice else BertForSequenceClassification
    model = kind.from_pretrained(folder, config=config, dtype=torch.float32).eval()
    missing = model.load_state_dict({k: v.float() for k, v in load_file(folder / "heads" / task / "head.safetensors").items()}, strict=False)
    assert not missing.unexpected_keys, missing
    theirs = []
    for row in rows:
        texts = ([row["text_a"]] * len(row["choices"]), row["choices"]) if choice else ([row["text_a"]],) + (([row["text_b"]],) if "text_b" in row else ())
        inputs = tokenizer(*texts, truncation="longest_first", max_length=min(128, config.max_position_embeddings), padding="longest", return_tensors="pt", return_token_type_ids=True)
        with torch.no_grad():
            theirs.append(model(**({k: v[None] for k, v in inputs.items()} if choice else inputs)).logits[0])
    theirs = torch.stack(theirs)
    difference = ((torch.tensor(ours[task]) - theirs).abs().max() / theirs.abs().max()).item()
    failed |= not difference <= 1e-4
    print(f"{task}: {count} examples, largest difference {difference:.1e} of the largest logit ({ours['engine']} against transformers)")
sys.exit(failed)
