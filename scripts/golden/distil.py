"""Distillation token by token, as PyTorch has it: divergences over a teacher's likeliest tokens and the mass of the others, with their
gradients, and the coefficients' gradient of a merge that learns its experts.

    python scripts/golden/distil.py     # writes test/golden/distil.json"""

import json
from pathlib import Path

import torch
import transformers as tf
from torch.func import functional_call

from models import coefficient

ROOT = Path(__file__).parents[2] / "test" / "golden"


def buckets(logits, ids, temperature):
    """Log-probabilities of some tokens, and of all others together."""
    logp = torch.log_softmax(logits / temperature, -1)
    top = logp.gather(-1, ids)
    others = logp.scatter(-1, ids, float("-inf"))
    return top, torch.logsumexp(others, -1, keepdim=True)


def divergence(student, teacher, count, temperature, which):
    """A row each, times the temperature's square."""
    ids = (teacher / temperature).topk(count, -1).indices
    p, q = [torch.cat(buckets(logits, ids, temperature), -1) for logits in (teacher, student)]
    a, b = (p, q) if which == "forward" else (q, p)
    some = torch.isfinite(a) & torch.isfinite(b)
    a, b = torch.where(some, a, 0), torch.where(some, b, 0)
    return (torch.where(some, a.exp() * (a - b), 0)).sum(-1) * temperature**2


def op(count, temperature, which, vocabulary=13, rows=4, width=3):
    g = torch.Generator().manual_seed(count * 7 + int(10 * temperature))
    x = torch.randn(rows, width, generator=g, requires_grad=True)
    w = torch.randn(vocabulary, width, generator=g, requires_grad=True)
    teacher = 2 * torch.randn(rows, vocabulary, generator=g)
    dy = torch.rand(rows, generator=g)
    value = divergence(x @ w.T, teacher, count, temperature, which)
    dx, dw = torch.autograd.grad(value, [x, w], dy)
    ids = (teacher / temperature).topk(count, -1).indices
    top, rest = buckets(teacher, ids, temperature)
    whole = torch.nn.functional.kl_div(torch.log_softmax(x @ w.T / temperature, -1), torch.log_softmax(teacher / temperature, -1), log_target=True, reduction="none").sum(-1) * temperature**2
    if which == "forward" and count == vocabulary:
        assert torch.allclose(value, whole, atol=1e-5)
    return dict(count=count, temperature=temperature, divergence=which, x=x.tolist(), w=w.tolist(), dy=dy.tolist(), teacher=teacher.tolist(), ids=ids.tolist(), logP=top.tolist(), rest=rest.clamp(min=-60).flatten().tolist(), value=value.tolist(), dx=dx.tolist(), dw=dw.tolist(), whole=whole.tolist())


def merged(name, count, temperature, which):
    """∂L/∂w of a merge of two experts, each of which speaks of rows of its own."""
    folder = ROOT / "models" / name
    load = lambda which: tf.AutoModelForCausalLM.from_pretrained(folder / which, attn_implementation="eager").eval()
    base, experts = load("base"), [load("a"), load("b")]
    golden = json.loads((folder / "golden.json").read_text())
    layers = golden["layers"]
    start, own = {k: p.detach() for k, p in base.named_parameters()}, [{k: p.detach() for k, p in e.named_parameters()} for e in experts]
    raw = torch.tensor([[coefficient(r, c) for c in range(2)] for r in range(len(layers))], requires_grad=True)
    gated = torch.tanh(raw)
    weights = {k: start[k] + sum(gated[layers.index(k), c] * (own[c][k] - start[k]) for c in range(2)) if k in layers else own[0][k] for k in start}
    rows = [[5, 9, 11, 7, 20], [8, 3, 30, 12], [17, 4, 4, 22, 9, 31]]
    targets = [[6, 12, 2], [19], [7, 7]]
    losses = []
    for expert in experts:
        total, tokens = 0.0, 0
        for ids, said in zip(rows, targets):
            whole = torch.tensor([ids + said[:-1]])
            with torch.no_grad():
                teacher = expert(whole).logits[0, len(ids) - 1 :]
            student = functional_call(base, weights, (whole,), tie_weights=True).logits[0, len(ids) - 1 :]
            total, tokens = total + divergence(student, teacher, count, temperature, which).sum(), tokens + len(said)
        losses.append(total / tokens)
    (gradient,) = torch.autograd.grad(sum(losses), raw)
    return dict(model=name, count=count, temperature=temperature, divergence=which, rows=rows, targets=targets, losses=[one.item() for one in losses], layers=layers, gradient=gradient.tolist())


if __name__ == "__main__":
    ops = [op(*settings) for settings in [(3, 1.0, "forward"), (3, 1.0, "reverse"), (1, 2.0, "forward"), (5, 0.5, "reverse"), (13, 1.5, "forward"), (13, 1.0, "reverse")]]
    merges = [merged(*settings) for settings in [("llama-llama3", 6, 1.0, "forward"), ("gpt2", 4, 2.0, "reverse"), ("qwen3", 40, 1.0, "forward"), ("opt", 5, 1.0, "reverse"), ("gemma2", 6, 2.0, "forward"), ("gemma2", 4, 1.0, "reverse")]]
    (ROOT / "distil.json").write_text(json.dumps(dict(ops=ops, merges=merges), separators=(",", ":")) + "\n")
    print([m["losses"] for m in merges])
