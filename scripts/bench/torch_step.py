"""The training step in PyTorch, for scripts/bench/step.ts: reads {what, n} on stdin, prints what it measured.

    torch_step.py BASE BATCHES.json adamerging|stacked[+compile][+tf32] TASK=FOLDER ...

DEVICE in the environment names where it runs (default: cpu).
"""
import json
import os
import resource
import sys
import time

import torch
from torch.func import functional_call
from transformers import BertForMultipleChoice, BertForSequenceClassification, BertModel

base_folder, batch_file, ways, *experts = sys.argv[1:]
variant, *extras = ways.split("+")
device = os.environ.get("DEVICE", "cpu")
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
torch.set_num_threads(int(os.environ.get("THREADS", torch.get_num_threads())))
torch.set_float32_matmul_precision("high" if "tf32" in extras else "highest")
batches = json.load(open(batch_file))
base = {k: v for k, v in BertModel.from_pretrained(base_folder, dtype=torch.float32).to(device).state_dict().items()}
models = []
for (_, folder), batch in zip((e.split("=", 1) for e in experts), batches):
    kind = BertForMultipleChoice if batch["choices"] else BertForSequenceClassification
    models.append(kind.from_pretrained(folder, dtype=torch.float32).to(device).eval())
states = [{k.removeprefix("bert."): v.detach() for k, v in m.state_dict().items()} for m in models]
deltas = {k: torch.stack([s[k] - v for s in states]) for k, v in base.items() if v.is_floating_point()}
deltas = {k: d for k, d in deltas.items() if d.abs().max() > 0}
heads = [{k: v.detach() for k, v in m.state_dict().items() if k.startswith("classifier.")} for m in models]
vectors = {k: list(d.unbind(0)) for k, d in deltas.items()} if variant == "adamerging" else None
del states

raw = torch.full((len(deltas), len(models)), 0.30952, device=device, requires_grad=True)
optimizer = torch.optim.AdamW([raw], lr=0.03, weight_decay=0.0)
inputs = []
for b in batches:
    shape = (len(b["labels"]), b["choices"], -1) if b["choices"] else (b["size"], -1)
    view = lambda x: torch.tensor(x, device=device).view(*shape)
    inputs.append(({"input_ids": view(b["ids"]), "token_type_ids": view(b["types"]), "attention_mask": view(b["mask"])}, torch.tensor(b["labels"], device=device)))


real_tokens = sum(sum(b["mask"]) for b in batches)
times = {}


def timed(part, work):
    start = time.perf_counter()
    out = work()
    wait()
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


# One module a kind of model: its weights come in from outside, and a compiled one is compiled once.
shared = {}
for model in models:
    shared.setdefault(type(model), model)


def logits(kind, weights, x):
    return functional_call(shared[kind], weights, (), x).logits


if "compile" in extras:
    logits = torch.compile(logits)
    merge = torch.compile(merge)


def forward(weights):
    return [logits(type(model), {**weights, **head}, x) for model, head, (x, _) in zip(models, heads, inputs)]


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
step()  # a second one, so that nothing is compiled while the clock runs
for line in sys.stdin:
    command = json.loads(line)
    times.clear()
    n = 1 if command["what"] == "parts" else command["n"]
    start = time.perf_counter()
    for _ in range(n):
        evaluate() if command["what"] == "evaluate" else step()
    wait()
    ms = (time.perf_counter() - start) * 1000 / n
    if command["what"] == "parts":
        print(json.dumps({"parts": times}), flush=True)
    else:
        print(json.dumps({"ms": ms, "tokensPerSecond": 1000 * real_tokens / ms, "peak": torch.cuda.max_memory_reserved() if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)
