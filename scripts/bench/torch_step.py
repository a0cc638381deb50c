"""The training step in PyTorch, for scripts/bench/step.ts: reads {what, n} on stdin, prints what it measured.

    torch_step.py BASE BATCHES.json adamerging|stacked TASK=FOLDER ...
"""
import json
import resource
import sys
import time

import torch
from torch.func import functional_call
from transformers import BertForMultipleChoice, BertForSequenceClassification, BertModel

base_folder, batch_file, variant, *experts = sys.argv[1:]
torch.set_num_threads(int(__import__("os").environ.get("THREADS", torch.get_num_threads())))
batches = json.load(open(batch_file))
base = {k: v for k, v in BertModel.from_pretrained(base_folder, dtype=torch.float32).state_dict().items()}
models = []
for (_, folder), batch in zip((e.split("=", 1) for e in experts), batches):
    kind = BertForMultipleChoice if batch["choices"] else BertForSequenceClassification
    models.append(kind.from_pretrained(folder, dtype=torch.float32).eval())
states = [{k.removeprefix("bert."): v.detach() for k, v in m.state_dict().items()} for m in models]
deltas = {k: torch.stack([s[k] - v for s in states]) for k, v in base.items() if v.is_floating_point()}
deltas = {k: d for k, d in deltas.items() if d.abs().max() > 0}
heads = [{k: v.detach() for k, v in m.state_dict().items() if k.startswith("classifier.")} for m in models]
vectors = {k: list(d.unbind(0)) for k, d in deltas.items()} if variant == "adamerging" else None
del states

raw = torch.full((len(deltas), len(models)), 0.30952, requires_grad=True)
optimizer = torch.optim.AdamW([raw], lr=0.03, weight_decay=0.0)
inputs = []
for b in batches:
    shape = (len(b["labels"]), b["choices"], -1) if b["choices"] else (b["size"], -1)
    view = lambda x: torch.tensor(x).view(*shape)
    inputs.append(({"input_ids": view(b["ids"]), "token_type_ids": view(b["types"]), "attention_mask": view(b["mask"])}, torch.tensor(b["labels"])))


real_tokens = sum(sum(b["mask"]) for b in batches)
times = {}


def timed(part, work):
    start = time.perf_counter()
    out = work()
    times[part] = times.get(part, 0) + (time.perf_counter() - start) * 1000
    return out


def merge():
    gated = torch.tanh(raw)
    merged = dict(base)
    for j, (name, d) in enumerate(deltas.items()):
        if vectors is None:  # one product a tensor over the stacked deltas
            merged[name] = base[name] + (gated[j] @ d.view(d.shape[0], -1)).view(base[name].shape)
        else:  # AdaMerging's arithmetic: one product an expert and a Python sum
            merged[name] = base[name] + sum(tau * c for tau, c in zip(vectors[name], gated[j].unbind(0)))
    return {f"bert.{k}": v for k, v in merged.items()}


def forward(weights):
    return [functional_call(model, {**weights, **head}, (), x).logits for model, head, (x, _) in zip(models, heads, inputs)]


def step():
    optimizer.zero_grad()
    weights = timed("merge", merge)
    losses = timed("forward", lambda: [torch.nn.functional.cross_entropy(z, y) for z, (_, y) in zip(forward(weights), inputs)])
    timed("backward", lambda: sum(losses).backward())
    timed("optimiser", optimizer.step)
    return [l.item() for l in losses]


def evaluate():
    with torch.no_grad():
        for logits in forward(merge()):
            logits.tolist()


print(json.dumps({"losses": step()}), flush=True)
for line in sys.stdin:
    command = json.loads(line)
    times.clear()
    n = 1 if command["what"] == "parts" else command["n"]
    start = time.perf_counter()
    for _ in range(n):
        evaluate() if command["what"] == "evaluate" else step()
    ms = (time.perf_counter() - start) * 1000 / n
    if command["what"] == "parts":
        print(json.dumps({"parts": times}), flush=True)
    else:
        print(json.dumps({"ms": ms, "tokensPerSecond": 1000 * real_tokens / ms, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)
