"""The training step in PyTorch, for scripts/bench/step.ts: reads {what, n} on stdin, prints what it measured.

    torch_step.py BASE BATCHES.json WAY TASK=FOLDER ...

WAY: see torch_peers.py. DEVICE in the environment names where it runs (default: cpu), THREADS the threads.
"""
import json
import os
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch_peers import Task, Way

start = 0.30952  # tanh of it is 0.3
base_folder, batch_file, way_text, *experts = sys.argv[1:]
device = os.environ.get("DEVICE", "cpu")
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
torch.set_num_threads(int(os.environ.get("THREADS", torch.get_num_threads())))
way = Way(way_text, base_folder, [expert.split("=", 1)[1] for expert in experts], device)


def read_task(batch):
    """What the file pads to one length, as rows without padding."""
    lengths = torch.tensor(batch["mask"]).view(batch["size"], -1).sum(1).tolist()
    cut = lambda values: [values[r * batch["length"]:][:length] for r, length in enumerate(lengths)]
    return Task(list(zip(cut(batch["ids"]), cut(batch["types"]))), batch["labels"], batch["choices"])


tasks = [read_task(batch) for batch in json.load(open(batch_file))]
laid_out = way.lay_out(tasks)
labels = [torch.tensor(task.labels, device=device) for task in tasks]
tokens = sum(len(ids) for task in tasks for ids, _ in task.rows)
raw = torch.full((len(way.family.deltas), len(tasks)), start, device=device, requires_grad=True)
optimizer = torch.optim.AdamW([raw], lr=0.03, weight_decay=0.0)
times = {}


def timed(part, work):
    start = time.perf_counter()
    out = work()
    wait()
    times[part] = times.get(part, 0) + (time.perf_counter() - start) * 1000
    return out


def logits():
    coefficients, out = torch.tanh(raw), []
    for layout, numbers in laid_out:
        members, heads = [tasks[i] for i in numbers], [way.family.heads[i] for i in numbers]
        weights = timed("merge", lambda: way.merge(coefficients, layout.only))
        out += timed("forward", lambda: way.logits(layout, members, heads, weights))
    return out


def step():
    optimizer.zero_grad()
    losses = [F.cross_entropy(scores, right) for scores, right in zip(logits(), labels)]
    timed("backward", lambda: sum(losses).backward())
    gradient = raw.grad.tolist()
    timed("optimiser", optimizer.step)
    return {"losses": [loss.item() for loss in losses], "gradient": dict(zip(way.family.deltas, gradient))}


@torch.no_grad()
def evaluate():
    for scores in logits():
        scores.tolist()


def rate(amount, work, rounds=5):
    """Billions a second of whatever there is `amount` of in a call, at its median."""
    calls = 32 if device == "cuda" else 1  # waiting for a card is to be a small part
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        wait()
        times.append((time.perf_counter() - start) / calls)
    return amount / sorted(times[1:])[rounds // 2] / 1e9


@torch.no_grad()
def machine():
    """What products (GFLOP/s) and copies (GB/s, read and written) give here: as machine.ts measures them."""
    width = way.family.model.config.hidden_size

    def product(n, m, k):
        a, b = torch.rand(n, m, device=device), torch.rand(m, k, device=device)
        return rate(2 * n * m * k, lambda: a @ b)

    def joined(mebibytes):
        halves = [torch.rand(mebibytes * 2**17, device=device) for _ in range(2)]
        return rate(mebibytes * 2**21, lambda: torch.cat(halves))

    source = torch.rand(2**24, device=device)
    target = torch.rand(2**24, device=device)
    return {
        "square": product(1024, 1024, 1024),
        "model": product(min(tokens, 2048), width, 4 * width),
        "joined": joined(16),
        "joinedLarge": joined(64),
        "copied": rate(2**27, lambda: target.copy_(source)),
    }


def peak():
    if device == "cuda":
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def answer(value):
    print(json.dumps(value), flush=True)


first = step()
step()  # a second one, so that nothing is compiled while the clock runs
answer({**first, "runsOn": f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads"})
for line in sys.stdin:
    request = json.loads(line)
    if request["what"] == "machine":
        answer(machine())
        continue
    times.clear()
    begin = time.perf_counter()
    for _ in range(request["n"]):
        evaluate() if request["what"] == "evaluate" else step()
    wait()
    ms = (time.perf_counter() - begin) * 1000 / request["n"]
    answer({"ms": ms, "tokensPerSecond": 1000 * tokens / ms, "peakBytes": peak(), "parts": times})
