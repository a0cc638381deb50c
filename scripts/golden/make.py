"""Makes the golden values in test/golden/ with PyTorch and transformers.

    python -m venv .venv && .venv/bin/pip install -r scripts/golden/requirements.txt
    .venv/bin/python scripts/golden/make.py              # the family that ships, optimiser, number formats
    .venv/bin/python scripts/golden/make.py --real ../shared/data/text   # and checkpoints/minilm, where it is
"""
import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch.func import functional_call
from transformers import AutoConfig, AutoTokenizer, BertForMultipleChoice, BertForSequenceClassification, BertModel

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "test" / "golden"


def save(name, value):
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(value) + "\n")
    print(name, (OUT / f"{name}.json").stat().st_size, "bytes")


def dtypes():
    """float32 values and the bits that torch rounds them to, ties, subnormals and overflow among them."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31 - 1, (400,), generator=generator, dtype=torch.int64).to(torch.int32)
    random = bits.view(torch.float32)
    edges = torch.tensor([0.0, -0.0, 1.0, 65504.0, 65519.996, 65520.0, 1e6, 2**-14, 2**-15, 2**-24, 2**-25, 1.5 * 2**-24, 2**-26,
                          6.1e-5, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38, -3.4e38, 1e-40, 0.1, math.pi])
    normal = torch.randn(300, generator=generator) * torch.logspace(-9, 5, 300)
    values = torch.cat([edges, normal, random[~random.isnan()]])
    save("dtypes", {
        "bits": [int(b) for b in values.view(torch.int32).tolist()],
        "F16": [b & 0xFFFF for b in values.to(torch.float16).view(torch.int16).tolist()],
        "BF16": [b & 0xFFFF for b in values.to(torch.bfloat16).view(torch.int16).tolist()],
    })


def shuffles():
    """Orders that Python's random.shuffle gives: the papers' small validation sets are cut by it, with seed 42."""
    import random

    cases = []
    for seed, count in [(42, 7), (42, 56), (42, 277), (0, 100), (1, 1), (7, 1300), (5_000_000_000, 20)]:
        random.seed(seed)
        order = list(range(count))
        random.shuffle(order)
        cases.append({"seed": seed, "count": count, "order": order})
    save("shuffles", cases)


def adamw():
    """100 steps of torch.optim.AdamW in float64 on fixed gradients that depend on the parameter."""
    cases = []
    for decay in (0.0, 0.01, 0.1):
        w = torch.linspace(-1, 1, 12, dtype=torch.float64).requires_grad_()
        target = torch.cos(torch.arange(12, dtype=torch.float64))
        optimizer = torch.optim.AdamW([w], lr=0.03, weight_decay=decay)
        start = w.detach().tolist()
        for step in range(100):
            optimizer.zero_grad()
            (((w - target) ** 2) * (1 + 0.5 * math.sin(step))).sum().backward()
            optimizer.step()
        cases.append({"weightDecay": decay, "start": start, "target": target.tolist(), "end": w.detach().tolist()})
    save("adamw", {"lr": 0.03, "steps": 100, "cases": cases})


def losses():
    """Cross-entropy, entropy and divergence from told probabilities, of logits, with their gradients."""
    generator = torch.Generator().manual_seed(1)
    z = (torch.randn(5, 4, generator=generator) * 3).requires_grad_()
    labels = torch.tensor([0, 3, 1, 1, 2])
    out = {"logits": z.detach().tolist(), "labels": labels.tolist()}
    cross = torch.nn.functional.cross_entropy(z, labels)
    out["crossEntropy"] = {"value": cross.item(), "gradient": torch.autograd.grad(cross, z)[0].tolist()}
    log_p = torch.log_softmax(z, 1)
    entropy = -(log_p.exp() * log_p).sum(1).mean()
    out["entropy"] = {"value": entropy.item(), "gradient": torch.autograd.grad(entropy, z)[0].tolist()}
    p = torch.softmax(z, 1)
    guarded = -(p * torch.log(p + 1e-8)).sum(1).mean()
    out["guardedEntropy"] = {"value": guarded.item(), "gradient": torch.autograd.grad(guarded, z)[0].tolist()}
    told = torch.softmax(torch.randn(5, 4, generator=generator) * 2, 1)
    told[0] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # 0 log 0
    divergence = torch.nn.functional.kl_div(torch.log_softmax(z, 1), told, reduction="batchmean")
    out["divergence"] = {"told": told.tolist(), "value": divergence.item(), "gradient": torch.autograd.grad(divergence, z)[0].tolist()}
    save("losses", out)


def ops():
    """The blocks of models/ops.ts, value and gradient, in PyTorch's own arithmetic."""
    g = torch.Generator().manual_seed(2)
    rand = lambda *shape: torch.randn(*shape, generator=g)
    out = {}

    def case(name, inputs, run, **extra):
        leaves = {key: value.clone().requires_grad_() for key, value in inputs.items()}
        y = run(**leaves)
        dy = rand(*y.shape)
        grads = torch.autograd.grad(y, list(leaves.values()), dy)
        out[name] = {"inputs": {k: v.tolist() for k, v in inputs.items()}, "y": y.tolist(), "dy": dy.tolist(),
                     "gradients": [x.tolist() for x in grads], **extra}

    case("linear", {"x": rand(6, 5), "weight": rand(3, 5), "bias": rand(3)}, lambda x, weight, bias: torch.nn.functional.linear(x, weight, bias))
    case("gelu", {"x": rand(4, 6) * 3}, lambda x: torch.nn.functional.gelu(x))
    case("layerNorm", {"x": rand(4, 8) * 2 + 1, "scale": rand(8), "shift": rand(8)}, lambda x, scale, shift: torch.nn.functional.layer_norm(x, (8,), scale, shift, 1e-12))
    ids = torch.tensor([2, 0, 2, 4, 1, 2])
    case("rows", {"table": rand(5, 3)}, lambda table: table[ids], ids=ids.tolist())
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    bias = (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min

    def attention(query, key, value):
        split = lambda t: t.view(3, 4, 2, 3).transpose(1, 2)
        scores = split(query) @ split(key).transpose(2, 3) / math.sqrt(3) + bias
        return (scores.softmax(-1) @ split(value)).transpose(1, 2).reshape(12, 6)

    case("attention", {"query": rand(12, 6), "key": rand(12, 6), "value": rand(12, 6)}, attention, mask=mask.tolist(), heads=2)
    save("ops", out)


def packing():
    """Deltas rounded to bfloat16 and to int8 with a scale a row; the merge and its inner products in float64."""
    g = torch.Generator().manual_seed(3)
    cases = []
    for rows, width in [(1, 1), (1, 13), (4, 7), (3, 8), (5, 130)]:
        stack = torch.randn(3, rows, width, generator=g) * torch.logspace(-4, 0, rows)[None, :, None]
        stack[1, 0] = 0  # a row without a scale
        base, d_theta = torch.randn(rows, width, generator=g), torch.randn(rows, width, generator=g)
        c = torch.tensor([0.3, -0.7, 0.9])
        scale = stack.abs().amax(2, keepdim=True) / 127
        int8 = torch.where(scale > 0, (stack / scale + 0.5).floor().clamp(-127, 127) * scale, 0.0)
        out = {"rows": rows, "width": width, "stack": stack.flatten().tolist(), "base": base.flatten().tolist(), "dTheta": d_theta.flatten().tolist(), "coefficients": c.tolist()}
        for name, packed in [("f32", stack), ("bf16", stack.to(torch.bfloat16).float()), ("int8", int8)]:
            d = packed.double()
            out[name] = {"merged": (base.double() + torch.tensordot(c.double(), d, 1)).flatten().tolist(), "products": (d * d_theta.double()).sum((1, 2)).tolist()}
        cases.append(out)
    save("packing", cases)


def truncation():
    """Ids of pairs that are too long, cut by transformers' fast tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "checkpoints" / "mini" / "base")
    words = ["anna", "red", "cup", "the", "park"]
    text = lambda n, shift: " ".join(words[(i + shift) % 5] for i in range(n))
    cases = []
    for limit in (11, 12, 16, 17):
        for a, b in [(1, 1), (3, 30), (30, 3), (4, 4), (5, 5), (20, 20), (20, 21), (21, 20), (7, 6), (6, 7), (1, 40), (40, None), (5, None)]:
            args = (text(a, 0),) if b is None else (text(a, 0), text(b, 2))
            ids = tokenizer(*args, truncation="longest_first", max_length=limit)["input_ids"]
            cases.append({"maxLength": limit, "texts": args, "ids": ids})
    save("truncation", cases)


def coefficient(row, column):
    """A fixed table of raw coefficients that the tests can make again."""
    return 0.1 + 0.05 * ((row * 7 + column * 3) % 11)


def canonical(name):
    return name.removeprefix("bert.")


def family(name, tasks, data, max_length, per_task, steps=0):
    """Logits of the experts and of a merge, loss and its gradient with respect to the raw (tanh) coefficients."""
    folder = ROOT / "checkpoints" / name
    kinds = json.loads((data / "tasks.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    encoder = BertModel.from_pretrained(folder / "base", dtype=torch.float32, attn_implementation="eager").eval()
    base = {k: v.float() for k, v in encoder.state_dict().items()}
    experts = {}
    for task in tasks:
        kind = BertForMultipleChoice if kinds[task]["kind"] == "choice" else BertForSequenceClassification
        config = AutoConfig.from_pretrained(folder / "experts" / task)
        experts[task] = kind.from_pretrained(folder / "experts" / task, config=config, dtype=torch.float32, attn_implementation="eager").eval()
    states = {task: {canonical(k): v.detach() for k, v in expert.state_dict().items()} for task, expert in experts.items()}
    deltas = {k: torch.stack([states[task][k] - v for task in tasks]) for k, v in base.items() if v.is_floating_point()}
    # Rows in the order of the base's own names, in the model's order: embeddings, layers, pooler.
    layers = [k for k, d in deltas.items() if d.abs().max() > 0]
    raw = torch.tensor([[coefficient(r, c) for c in range(len(tasks))] for r in range(len(layers))], dtype=torch.float32, requires_grad=True)
    out = {"family": name, "tasks": tasks, "layers": layers, "maxLength": max_length, "batches": []}
    kept = {}
    for task in tasks:
        rows = [json.loads(line) for line in (data / task / "validation.jsonl").read_text().splitlines()[:per_task]]
        labels = torch.tensor([row["label"] for row in rows])
        choice = kinds[task]["kind"] == "choice"
        first = [row["text_a"] for row in rows for _ in (row["choices"] if choice else [0])]
        second = [c for row in rows for c in row["choices"]] if choice else [row.get("text_b") for row in rows]
        args = (first, second) if second[0] is not None else (first,)
        encoded = tokenizer(*args, truncation="longest_first", max_length=max_length, padding="longest", return_tensors="pt", return_token_type_ids=True)
        shape = (len(rows), -1, encoded["input_ids"].shape[1]) if choice else encoded["input_ids"].shape
        inputs = {k: v.view(*shape) for k, v in encoded.items()}
        kept[task] = inputs
        with torch.no_grad():
            individual = experts[task](**inputs).logits
            features = encoder(**encoded).pooler_output
        gated = torch.tanh(raw)
        merged = dict(base)
        for j, layer in enumerate(layers):
            merged[layer] = base[layer] + torch.tensordot(gated[j], deltas[layer], dims=1)
        weights = {f"bert.{k}": v for k, v in merged.items()}
        weights.update({k: v for k, v in experts[task].state_dict().items() if k.startswith("classifier.")})
        logits = functional_call(experts[task], weights, (), inputs).logits
        loss = torch.nn.functional.cross_entropy(logits, labels)
        gradient = torch.autograd.grad(loss, raw, retain_graph=True, allow_unused=True)[0]
        out["batches"].append({
            "task": task, "labels": labels.tolist(), "choices": len(rows[0]["choices"]) if choice else None,
            "ids": encoded["input_ids"].tolist(), "types": encoded["token_type_ids"].tolist(), "lengths": encoded["attention_mask"].sum(1).tolist(),
            "base": features[:, :8].tolist(), "individual": individual.tolist(), "logits": logits.tolist(), "loss": loss.item(), "gradient": gradient.tolist(),
        })
    if steps:
        out["training"] = training(base, deltas, layers, [(experts[task], batch, kept[task]) for task, batch in zip(tasks, out["batches"])], steps)
    save(f"family-{name}", out)


def training(base, deltas, layers, jobs, steps):
    """AdamW on the summed loss of the first two examples of every batch, all coefficients from 0.3 through tanh: the loss before each step and after the last."""
    raw = torch.full((len(layers), len(jobs)), math.atanh(0.3), requires_grad=True)
    optimizer = torch.optim.AdamW([raw], lr=0.03, weight_decay=0.0)
    losses = []
    for step in range(steps + 1):
        optimizer.zero_grad()
        gated = torch.tanh(raw)
        merged = dict(base)
        for j, layer in enumerate(layers):
            merged[layer] = base[layer] + torch.tensordot(gated[j], deltas[layer], dims=1)
        weights = {f"bert.{k}": v for k, v in merged.items()}
        loss = 0
        for expert, batch, inputs in jobs:
            head = {k: v.detach() for k, v in expert.state_dict().items() if k.startswith("classifier.")}
            loss = loss + torch.nn.functional.cross_entropy(functional_call(expert, {**weights, **head}, (), {k: v[:2] for k, v in inputs.items()}).logits, torch.tensor(batch["labels"][:2]))
        losses.append(loss.item())
        loss.backward()
        if step < steps:
            optimizer.step()
    return {"steps": steps, "lr": 0.03, "init": 0.3, "losses": losses}


def statistics(tasks, data, max_length, per_task):
    """Diagonal Fisher information and Gram matrices of the shipped family's experts, example by example."""
    folder = ROOT / "checkpoints" / "mini"
    kinds = json.loads((data / "tasks.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    out = {}
    for task in tasks:
        choice = kinds[task]["kind"] == "choice"
        kind = BertForMultipleChoice if choice else BertForSequenceClassification
        expert = kind.from_pretrained(folder / "experts" / task, config=AutoConfig.from_pretrained(folder / "experts" / task), dtype=torch.float32, attn_implementation="eager").eval()
        parameters = {n: p for n, p in expert.named_parameters() if n.startswith("bert.")}
        fisher = {n: torch.zeros_like(p) for n, p in parameters.items()}
        grams, tokens = {}, {}

        def watch(name):
            def hook(_, args):
                x = args[0].reshape(-1, args[0].shape[-1])
                grams[name] = grams.get(name, 0) + x.T @ x
                tokens[name] = tokens.get(name, 0) + x.shape[0]
            return hook

        hooks = [m.register_forward_pre_hook(watch(n)) for n, m in expert.named_modules() if isinstance(m, torch.nn.Linear) and n.startswith("bert.")]
        for line in (data / task / "validation.jsonl").read_text().splitlines()[:per_task]:
            row = json.loads(line)
            if choice:
                pairs = [tokenizer(row["text_a"], c, truncation="longest_first", max_length=max_length, return_tensors="pt") for c in row["choices"]]
                # One by one: no padding among the Gram matrices' rows.
                z = torch.cat([expert(**{k: v.unsqueeze(0) for k, v in pair.items()}).logits for pair in pairs], 1)
            else:
                args = [row["text_a"]] + ([row["text_b"]] if row.get("text_b") is not None else [])
                z = expert(**tokenizer(*args, truncation="longest_first", max_length=max_length, return_tensors="pt")).logits
            log_p = torch.log_softmax(z, 1)[0]
            for y in range(len(log_p)):
                for (n, _), g in zip(parameters.items(), torch.autograd.grad(log_p[y], list(parameters.values()), retain_graph=True)):
                    fisher[n] += log_p[y].exp().detach() * g**2 / per_task
        for hook in hooks:
            hook.remove()
        grams = {n: g.detach() / tokens[n] for n, g in grams.items()}
        out[task] = {
            "fisher": {canonical(n): {"sum": f.double().sum().item(), "first": f.flatten()[:6].tolist()} for n, f in fisher.items()},
            "gram": {canonical(n) + ".weight": {"size": g.shape[0], "trace": g.double().trace().item(), "first": g[0, :6].tolist(), "last": g[-1, -3:].tolist()} for n, g in grams.items()},
        }
    save("statistics", {"maxLength": max_length, "perTask": per_task, "tasks": out})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", help="the names of the files to make, separated by commas")
    parser.add_argument("--real", type=Path, help="data folder of the real family; its checkpoints are looked for in checkpoints/minilm")
    options = parser.parse_args()
    torch.manual_seed(0)
    mini = ROOT / "data" / "mini"
    made = {
        "dtypes": dtypes, "shuffles": shuffles, "adamw": adamw, "losses": losses, "ops": ops, "truncation": truncation, "packing": packing,
        "family-mini": lambda: family("mini", ["rte", "cb", "copa", "sst2", "trec6"], mini, 48, 8, steps=20),
        "statistics": lambda: statistics(["cb", "copa"], mini, 48, 3),
    }
    for name, make in made.items():
        if not options.only or name in options.only.split(","):
            make()
    if options.real:
        family("minilm", ["rte", "cb", "copa", "trec6", "sst2"], options.real, 128, 4)
