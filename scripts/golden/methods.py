"""Makes test/golden/methods.json: every method that trains nothing, in its reference's arithmetic, on small tensors.

    .venv/bin/python scripts/golden/methods.py

The arithmetic is that of the papers and of their authors' (or mergekit's) code, in torch, float32 unless said otherwise. Draws
of random numbers are train-merge's own, made here again, so that what is dropped is the same.
"""
import json
import math
from pathlib import Path

import numpy as np
import torch

from draws import draws

OUT = Path(__file__).resolve().parents[2] / "test" / "golden" / "methods.json"

LABELS = ["ant", "bee", "cat"]


def tensors():
    g = torch.Generator().manual_seed(7)
    rand = lambda *shape: torch.randn(*shape, generator=g)
    out = {}

    def add(name, *shape, step=0.05):
        base = rand(*shape)
        out[name] = [base, *(base + step * rand(*shape) for _ in LABELS)]

    add("embeddings.table.weight", 5, 4)
    add("encoder.layer.0.dense.weight", 6, 8)
    add("encoder.layer.0.dense.bias", 6)
    add("encoder.layer.1.dense.weight", 6, 8, step=0.2)
    add("encoder.layer.1.dense.bias", 6)
    add("encoder.layer.2.dense.weight", 6, 8, step=0.01)
    add("one", 1)
    add("empty", 0, 4)
    # Steps of 1/8 on halves: magnitudes that tie, zeros, signs that cancel exactly.
    base = torch.round(rand(4, 6) * 2) / 2
    out["tied.weight"] = [base, *(base + torch.round(rand(4, 6) * 2) / 8 for _ in LABELS)]
    # A tensor that one expert left alone, and one that two moved in opposite directions.
    out["alone.weight"] = [base.clone(), base.clone(), base + 0.1 * rand(4, 6), base + 0.1 * rand(4, 6)]
    delta = torch.round(rand(4, 6) * 8) / 64
    out["opposed.weight"] = [base.clone(), base + delta, base - delta, base + torch.zeros(4, 6)]
    half = [t.to(torch.bfloat16).float() for t in (rand(4, 6), rand(4, 6), rand(4, 6))]
    out["half.weight"] = [half[0], *( (half[0] + 0.1 * rand(4, 6)).to(torch.bfloat16).float() for _ in LABELS)]
    return out


T = tensors()
NAMES = list(T)


def each(merge):
    """A method that sees one tensor at a time."""
    return {n: merge(n, T[n][0], T[n][1:]) for n in NAMES}


def deltas(base, xs):
    return [x - base for x in xs]


# --- what is done to a task vector ---
def rescaled(before, after):
    b, a = before.abs().sum(), after.abs().sum()
    return after if b < 1e-7 or a < 1e-7 else after * (b / a)


def dare(d, name, label, p, rescale="inverse", seed=0):
    if p <= 0:
        return d
    keep = (draws(d.numel(), seed, "dare", name, label) >= p * 2**32).reshape(d.shape)
    out = d * keep
    if rescale == "inverse":
        return out / (1 - p)
    return rescaled(d, out) if rescale == "l1" else out


def top(d, density):
    if density >= 1:
        return d
    if density <= 0 or d.numel() == 0:
        return torch.zeros_like(d)
    order = torch.argsort(d.abs().flatten(), descending=True, stable=True)[: max(1, int(density * d.numel()))]
    mask = torch.zeros(d.numel())
    mask[order] = 1
    return d * mask.reshape(d.shape)


def outliers(d, density, gamma):
    if density >= 1:
        return d
    n = d.numel()
    kept, dropped = int(density * n), int(gamma * n)
    low = max(0, n - kept - dropped)
    order = torch.sort(d.abs().flatten(), stable=True).indices[low : low + kept]
    mask = torch.zeros(n)
    mask[order] = 1
    return d * mask.reshape(d.shape)


def magprune(d, name, label, density, epsilon, seed=0):
    if density >= 1 or d.numel() == 0:
        return d
    rows = d.unsqueeze(0) if d.dim() < 2 else d
    ranks = torch.argsort(torch.argsort(rows.abs(), dim=1, stable=True), dim=1).double()
    width = rows.shape[1]
    probability = density - epsilon + (ranks / (width - 1) if width > 1 else ranks * 0) * 2 * epsilon
    keep = draws(d.numel(), seed, "della", name, label).reshape(rows.shape) < probability * 2**32
    return (rows * keep).reshape(d.shape)


# --- how task vectors are put together ---
def add_up(base, ds, weights=None, scale=1.0, normalize=False):
    weights = weights or [1.0] * len(ds)
    mixed = sum(w * d for w, d in zip(weights, ds))
    if normalize:
        mixed = mixed / sum(weights)
    return base + scale * mixed


def elect(base, ds, weights=None, scale=1.0, normalize=False):
    weights = torch.tensor(weights or [1.0] * len(ds)).reshape(-1, *[1] * base.dim())
    w = torch.stack(ds) * weights
    sign = (w.sum(0) >= 0).float() * 2 - 1
    mask = (w.sign() == sign).float()
    mixed, divisor = (w * mask).sum(0), (weights * mask).sum(0)
    divisor[divisor == 0] = 1
    return base + scale * (mixed / divisor if normalize else mixed)


def ties_original(density, combine, scale):
    """The authors': one vector of all tensors."""
    flat = torch.stack([torch.cat([(T[n][i + 1] - T[n][0]).flatten() for n in NAMES]) for i in range(len(LABELS))])
    d = flat.shape[1]
    # With a density of 1 the authors' code asks for the 0-th smallest and fails: all are kept.
    k = max(1, d - int(d * density))
    thresholds = flat.abs().kthvalue(k, dim=1, keepdim=True).values
    trimmed = flat * (flat.abs() >= thresholds)
    sign = torch.sign(trimmed.sum(0))
    majority = torch.sign(sign.sum())
    sign[sign == 0] = majority
    agreed = torch.where(sign.unsqueeze(0) > 0, trimmed > 0, trimmed < 0) * trimmed
    if combine == "mean":
        mixed = agreed.sum(0) / (agreed != 0).sum(0).float().clamp(min=1)
    else:
        mixed = agreed.sum(0)
    out, at = {}, 0
    for n in NAMES:
        size = T[n][0].numel()
        out[n] = T[n][0] + scale * mixed[at : at + size].reshape(T[n][0].shape)
        at += size
    treated, at = {}, 0
    for n in NAMES:
        size = T[n][0].numel()
        treated[n] = [(T[n][0] + agreed[i, at : at + size].reshape(T[n][0].shape)) for i in range(len(LABELS))]
        at += size
    return out, treated


def prune_model(p, scale):
    """The control of DARE's paper over all tensors: not larger than the ⌊d p⌋-th smallest goes."""
    out = {n: T[n][0].clone() for n in NAMES}
    for i in range(len(LABELS)):
        flat = torch.cat([(T[n][i + 1] - T[n][0]).flatten() for n in NAMES])
        limit = flat.abs().kthvalue(int(flat.numel() * p)).values
        for n in NAMES:
            d = T[n][i + 1] - T[n][0]
            out[n] = out[n] + scale * d * (d.abs() > limit)
    return out


def prune_tensor(d, p):
    count = int(d.numel() * p)
    return d if count == 0 else d * (d.abs() > d.abs().flatten().kthvalue(count).values)


# --- on the sphere ---
def slerp(a, b, t):
    a64, b64 = a.double(), b.double()
    na, nb = a64.norm(), b64.norm()
    cos = ((a64 / (na if na > 1e-8 else 1)) * (b64 / (nb if nb > 1e-8 else 1))).sum().clamp(-1, 1)
    if cos.abs() > 0.9995:
        return (1 - t) * a64 + t * b64
    angle = torch.acos(cos)
    return (torch.sin((1 - t) * angle) * a64 + torch.sin(t * angle) * b64) / torch.sin(angle)


def nuslerp(a, b, t, dim):
    a, b = a.double(), b.double()
    if dim is None:
        shape = a.shape
        return nuslerp(a.flatten(), b.flatten(), t, -1).reshape(shape)
    unit = lambda x: x / x.norm(dim=dim, keepdim=True).clamp(min=1e-7)
    cos = (unit(a) * unit(b)).sum(dim=dim, keepdim=True).clamp(-1, 1)
    # mergekit asks for 1e-16, which in its float32 is: no different from 1.
    line = 1 - cos**2 <= 2**-24
    angle = torch.acos(torch.where(line, torch.zeros_like(cos), cos))
    arc = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
    return torch.where(line, (1 - t) * a + t * b, arc)


def karcher(xs, steps=10, tol=1e-5):
    xs = [x.double().flatten() for x in xs]
    norms = [x.norm() for x in xs]
    valid = [i for i, n in enumerate(norms) if n > tol]
    if not valid:
        return xs[0] * 0
    units = [xs[i] / norms[i] for i in valid]
    mean = sum(units) / len(units)
    mean = units[0] if mean.norm() < tol else mean / mean.norm()
    for _ in range(steps):
        tangent = torch.zeros_like(mean)
        for u in units:
            dot = (mean @ u).clamp(-1, 1)
            angle = torch.acos(dot)
            if angle >= tol:
                tangent = tangent + angle / torch.sin(angle) * (u - dot * mean) / len(units)
        far = tangent.norm()
        if far < tol:
            break
        mean = torch.cos(far) * mean + torch.sin(far) * tangent / far
        mean = mean / mean.norm()
    return mean * (sum(norms) / len(norms))


def stock(base, xs, rows):
    k = len(xs)
    shape = base.shape
    flat = (lambda t: t.double().reshape(-1, t.shape[-1]) if t.dim() > 1 else t.double().unsqueeze(0)) if rows else (lambda t: t.double().reshape(1, -1))
    ds = [flat(x - base) for x in xs]
    cosines = []
    for i in range(k):
        for j in range(i + 1, k):
            cosines.append(((ds[i] * ds[j]).sum(-1) / (ds[i].norm(dim=-1) * ds[j].norm(dim=-1)).clamp(min=1e-6)).clamp(-1, 1))
    c = torch.stack(cosines).mean(0).unsqueeze(-1)
    bottom = 1 + (k - 1) * c
    t = torch.where(bottom.abs() < 1e-6, torch.zeros_like(c), k * c / bottom)
    return (flat(base) + t * sum(ds) / k).reshape(shape)


def sce(base, ds, part):
    d = torch.stack(ds).double()
    if part < 1:
        var = d.var(dim=0, unbiased=False).float()
        k = int(torch.count_nonzero(var) * part)
        mask = torch.zeros(var.numel())
        mask[torch.argsort(var.flatten(), descending=True, stable=True)[:k]] = 1
        d = d * mask.reshape(var.shape)
    weights = (d**2).reshape(len(ds), -1).mean(1) if d.numel() else torch.zeros(len(ds), dtype=torch.float64)
    weights = torch.ones_like(weights) / len(ds) if weights.sum().abs() < 1e-6 else weights / weights.sum()
    sign = (d.float().sum(0) >= 0).double() * 2 - 1
    w = weights.reshape(-1, *[1] * base.dim()) * (d.sign() == sign)
    return base + (d * w).sum(0) / w.sum(0).clamp(min=1e-6)


def select(base, ds, name, resample, seed=0):
    k, n = len(ds), base.numel()
    out = torch.zeros(n)
    open_ = torch.ones(n, dtype=torch.bool)
    for r in range(resample + 1):
        which = torch.floor(draws(n, seed, "select", name, r) / 2**32 * k).long()
        taken = torch.stack([d.flatten() for d in ds]).gather(0, which.unsqueeze(0))[0] if n else out
        out = torch.where(open_, taken, out)
        open_ = out == 0
    return base + out.reshape(base.shape)


def rankmean(module, weigh):
    block = lambda n: n.split(".dense")[0] if n.startswith("encoder.layer.") else None
    linear = lambda n: n.rsplit(".", 1)[0] if n.startswith("encoder.layer.") else None
    of = block if module == "block" else linear
    # Finer-grained: weights of linear layers, so matrices alone.
    counts = lambda n: of(n) and (module == "block" or T[n][0].dim() == 2)
    modules = list(dict.fromkeys(of(n) for n in NAMES if counts(n)))
    norms = [[math.sqrt(sum(float(((T[n][i + 1] - T[n][0]).double() ** 2).sum()) for n in NAMES if of(n) == m and counts(n))) for m in modules] for i in range(len(LABELS))]
    ranks = [np.argsort(np.argsort(row, kind="stable"), kind="stable") + 1 for row in norms]
    n = len(modules)
    weights = {"rank": lambda r: r, "printed": lambda r: 1 / (1 + n - r), "reversed": lambda r: 1 + n - r}[weigh]
    out = {}
    for name in NAMES:
        m = of(name)
        ws = [weights(r[modules.index(m)]) for r in ranks] if m in modules else [1] * len(LABELS)
        out[name] = sum(float(w) / float(sum(ws)) * x.double() for w, x in zip(ws, T[name][1:]))
    return out


def iso_c(b, ds, scale):
    """Marczak et al. 2025; fusion_bench's iso_c."""
    if b.dim() != 2 or 0 in b.shape:
        return b + scale * sum(ds) / len(ds)
    u, s, v = torch.linalg.svd(sum(ds).double(), full_matrices=False)
    return b + scale * (u @ (s.mean() * v))


def tsv_m(b, ds, scale):
    """Gargiulo et al. 2025; fusion_bench's compute_and_sum_svd_mem_reduction. Directions without a value are none of a task's."""
    if b.dim() != 2 or 0 in b.shape:
        return b + scale * sum(ds) / len(ds)
    share = min(b.shape) // len(ds)
    us, ss, vs = [], [], []
    for d in ds:
        u, s, v = torch.linalg.svd(d.double(), full_matrices=False)
        count = min(share, int((s > 1e-7 * s[0]).sum()) if s[0] > 0 else 0)
        us.append(u[:, :count]), ss.append(s[:count]), vs.append(v[:count])
    u, s, v = torch.cat(us, 1), torch.cat(ss), torch.cat(vs, 0)
    if s.numel() == 0:
        return b.clone()

    def near(m):
        p, q, r = torch.linalg.svd(m, full_matrices=False)
        # Directions that tasks share exactly are one: what is left of them is any.
        count = int((q > 1e-7 * q[0]).sum())
        return p[:, :count] @ r[:count]

    return b + scale * (near(u) * s) @ near(v)


def statistics():
    g = torch.Generator().manual_seed(11)
    fisher, gram = {}, {}
    for n in NAMES:
        shape = T[n][0].shape
        if n in ("one", "half.weight"):
            continue
        fisher[n] = [torch.rand(shape, generator=g) ** 6 for _ in LABELS]
        if n.endswith("dense.weight"):
            gram[n] = [(lambda x: (x.T @ x) / 20)(torch.randn(20, shape[1], generator=g)) for _ in LABELS]
    return fisher, gram


FISHER, GRAM = statistics()


def fisher(n, xs, weights, unit):
    if n not in FISHER:
        return sum(w * x for w, x in zip(weights, xs)) / sum(weights)
    norms = [math.sqrt(sum(float((FISHER[m][i].double() ** 2).sum()) for m in FISHER)) if unit else 1.0 for i in range(len(xs))]
    fs = [w * (f.double() / norm).clamp(min=1e-6) for w, f, norm in zip(weights, FISHER[n], norms)]
    return sum(f * x for f, x in zip(fs, xs)) / sum(fs)


def regmean(n, xs, alpha):
    if n not in GRAM:
        return sum(xs) / len(xs)
    gs = [g.double() * alpha + torch.diag(torch.diagonal(g.double())) * (1 - alpha) for g in GRAM[n]]
    return torch.linalg.solve(sum(gs), sum(g @ x.double().T for g, x in zip(gs, xs))).T


def multislerp(ds, weights, normalize, eps=1e-8):
    """Weighted mean on the sphere: one step along it from the direction of the weighted sum (mergekit's multislerp)."""
    w = torch.tensor(weights, dtype=torch.float64)
    w = w / w.sum() if normalize else w
    flat = torch.stack(ds).double().reshape(len(ds), -1)
    norms = flat.norm(dim=1)
    units = flat / (norms[:, None] + eps)
    direction = (units * w[:, None]).sum(0)
    size = direction.norm()
    if size < eps:
        return torch.zeros_like(ds[0])
    direction = direction / size
    tangent = ((units - (units @ direction)[:, None] * direction) * w[:, None]).sum(0)
    far = tangent.norm() + eps
    return ((direction * far.cos() + tangent * far.sin() / far) * (norms * w).sum()).reshape(ds[0].shape)


def ram(b, ds, epsilon, r=0.0, alpha=0.0):
    """Reinforced Agent Merging: what one alone changes is kept (raised by its overlap), what several change is averaged."""
    changes = torch.stack(ds)
    moved = changes.abs() > epsilon
    count = moved.sum(0)
    over = lambda mask: (moved & mask).flatten(1).sum(1)
    rho = (over(count > 1) / over(count == 1).clamp(min=epsilon)).clamp(0, alpha)
    raised = (1 + r * rho).reshape(-1, *[1] * b.dim())
    kept = changes * moved
    return b + torch.where(count == 1, kept * raised, kept / count.clamp(min=1)).sum(0)


def fuse(b, x):
    """Arcee fusion: an entry is the model's where |change| · KL(its row, the base's row) is an upper outlier."""
    if b.numel() == 0:
        return b
    p, q = x.softmax(-1) + 1e-8, b.softmax(-1) + 1e-8
    score = (x - b).abs() * (p * (p / q).log()).sum(-1, keepdim=True)
    ranked = score.flatten().sort().values
    q1, q2, q3 = (ranked[int(share * (len(ranked) - 1))] for share in (0.25, 0.5, 0.75))
    return torch.where(score >= q2 + 1.5 * (q3 - q1), x, b)


def main():
    cases = []

    def case(method, values, out, inputs=None):
        cases.append({"method": method, "values": values, "inputs": inputs or [0, 1, 2], "out": {n: out[n].float().flatten().tolist() for n in NAMES}})

    case("average", {}, each(lambda n, b, xs: sum(x.double() for x in xs) / 3))
    case("linear", {"weight": [1, 2, -0.5]}, each(lambda n, b, xs: (xs[0] + 2 * xs[1] - 0.5 * xs[2]) / 2.5))
    case("linear", {"weight": [0.2, 0.3, 0.1], "normalize": False}, each(lambda n, b, xs: 0.2 * xs[0] + 0.3 * xs[1] + 0.1 * xs[2]))
    case("task-arithmetic", {"lambda": 0.3}, each(lambda n, b, xs: add_up(b, deltas(b, xs), scale=0.3)))
    case("task-arithmetic", {"lambda": 0.5, "weight": [1, 2, 0.5], "normalize": True}, each(lambda n, b, xs: add_up(b, deltas(b, xs), [1, 2, 0.5], 0.5, True)))
    for combine, scale, density in [("mean", 1.0, 0.2), ("sum", 0.3, 0.2), ("mean", 1.5, 0.5), ("mean", 1.0, 1.0)]:
        case("ties", {"combine": combine, "lambda": scale, "density": density}, ties_original(density, combine, scale)[0])
    for which in range(3):
        case("treated", {"which": which, "by": "ties", "density": 0.2}, {n: xs[which] for n, xs in ties_original(0.2, "sum", 1.0)[1].items()})
    case("treated", {"which": 1, "by": "dare", "dareP": 0.7, "seed": 3}, each(lambda n, b, xs: b + dare(xs[1] - b, n, "bee", 0.7, seed=3)))
    for density, weights, normalize in [(0.2, None, True), (0.5, [1, 0.5, 2], True), (0.5, [1, 0.5, 2], False), (1.0, None, True)]:
        case("ties", {"variant": "mergekit", "density": density, "normalize": normalize, **({"weight": weights} if weights else {})},
             each(lambda n, b, xs: elect(b, [top(d, density) for d in deltas(b, xs)], weights, 1.0, normalize)))
    case("ties", {"variant": "mergekit", "density": 0.5, "rescaled": True}, each(lambda n, b, xs: elect(b, [rescaled(d, top(d, 0.5)) for d in deltas(b, xs)], None, 1.0, True)))
    for p, rescale, seed in [(0.9, "inverse", 0), (0.5, "l1", 1), (0.5, "none", 1)]:
        case("dare", {"dareP": p, "rescale": rescale, "lambda": 0.3, "seed": seed},
             each(lambda n, b, xs: add_up(b, [dare(d, n, l, p, rescale, seed) for d, l in zip(deltas(b, xs), LABELS)], scale=0.3)))
    case("average", {"dareP": [0.5, 0.2, 0], "seed": 5}, each(lambda n, b, xs: b + sum(dare(d, n, l, p, seed=5) for d, l, p in zip(deltas(b, xs), LABELS, [0.5, 0.2, 0])) / 3))
    case("ties", {"variant": "mergekit", "density": 1, "dareP": 0.4, "rescale": "l1", "normalize": False},
         each(lambda n, b, xs: elect(b, [dare(d, n, l, 0.4, "l1") for d, l in zip(deltas(b, xs), LABELS)])))
    case("magnitude-pruning", {"p": 0.8, "lambda": 0.3}, prune_model(0.8, 0.3))
    case("magnitude-pruning", {"p": 0.8, "lambda": 0.3, "over": "tensor"}, each(lambda n, b, xs: add_up(b, [prune_tensor(d, 0.8) for d in deltas(b, xs)], scale=0.3)))
    for density, gamma in [(0.9, 0.01), (0.5, 0.2), (0.6, 0.6)]:
        case("breadcrumbs", {"density": density, "gamma": gamma, "lambda": 0.4}, each(lambda n, b, xs: add_up(b, [outliers(d, density, gamma) for d in deltas(b, xs)], scale=0.4)))
    case("breadcrumbs-ties", {"density": 0.5, "gamma": 0.2, "lambda": 1, "rescaled": True}, each(lambda n, b, xs: elect(b, [rescaled(d, outliers(d, 0.5, 0.2)) for d in deltas(b, xs)])))
    case("della", {"density": 0.5, "epsilon": 0.2, "seed": 2}, each(lambda n, b, xs: elect(b, [rescaled(d, magprune(d, n, l, 0.5, 0.2, 2)) for d, l in zip(deltas(b, xs), LABELS)], None, 1.0, True)))
    case("della-linear", {"density": 0.7, "epsilon": 0.1, "lambda": 0.5, "rescaled": False}, each(lambda n, b, xs: add_up(b, [magprune(d, n, l, 0.7, 0.1) for d, l in zip(deltas(b, xs), LABELS)], scale=0.5)))
    for t in (0.0, 0.3, 1.0):
        case("slerp", {"t": t}, each(lambda n, b, xs: slerp(xs[0], xs[2], t)), [0, 2])
    for along, dim in [("tensor", None), ("row", -1), ("column", 0)]:
        case("nuslerp", {"along": along, "weight": [1, 3]}, each(lambda n, b, xs: b + nuslerp(xs[0] - b, xs[1] - b, 0.75, dim if b.dim() > 1 else None)), [0, 1])
    case("karcher", {}, each(lambda n, b, xs: karcher(xs)))
    case("model-stock", {}, each(lambda n, b, xs: stock(b, xs, False)))
    case("model-stock", {"filterWise": True}, each(lambda n, b, xs: stock(b, xs, True)))
    for part in (1.0, 0.3):
        case("sce", {"selectTopk": part}, each(lambda n, b, xs: sce(b, deltas(b, xs), part)))
    for resample in (0, 2):
        case("parameter-selection", {"resample": resample, "seed": 4}, each(lambda n, b, xs: select(b, deltas(b, xs), n, resample, 4)))
    for module in ("block", "linear"):
        for weigh in ("rank", "printed", "reversed"):
            case("rankmean", {"module": module, "weigh": weigh}, rankmean(module, weigh))
    case("fisher", {}, each(lambda n, b, xs: fisher(n, xs, [1, 1, 1], False)))
    case("fisher", {"weight": [0.5, 1, 2], "unit": True}, each(lambda n, b, xs: fisher(n, xs, [0.5, 1, 2], True)))
    for alpha in (0.9, 0.1, 1.0):
        case("regmean", {"alpha": alpha}, each(lambda n, b, xs: regmean(n, xs, alpha)))
    case("nearswap", {"t": 0.05}, each(lambda n, b, xs: b + (xs[1] - b) * (0.05 / (xs[1] - b).abs().clamp(min=1e-6)).clamp(max=1)), [1])
    case("multislerp", {"weight": [1, 2, 0.5]}, each(lambda n, b, xs: b + multislerp(deltas(b, xs), [1, 2, 0.5], True)))
    case("multislerp", {"weight": [0.6, 0.3, 0.4], "normalizeWeights": False}, each(lambda n, b, xs: b + multislerp(deltas(b, xs), [0.6, 0.3, 0.4], False)))
    for epsilon in (1e-5, 0.04):
        case("ram", {"epsilon": epsilon}, each(lambda n, b, xs: ram(b, deltas(b, xs), epsilon)))
        case("ramplus-tl", {"epsilon": epsilon, "r": 0.3}, each(lambda n, b, xs: ram(b, deltas(b, xs), epsilon, 0.3, 0.2)))
    for scale in (1.0, 0.4):
        case("iso-c", {"lambda": scale}, each(lambda n, b, xs: iso_c(b, deltas(b, xs), scale)))
        case("tsv-m", {"lambda": scale}, each(lambda n, b, xs: tsv_m(b, deltas(b, xs), scale)))
    case("arcee-fusion", {}, each(lambda n, b, xs: fuse(b, xs[0])), [0])
    case("passthrough", {"scale": 0.5}, each(lambda n, b, xs: 0.5 * xs[1]), [1])
    plain = lambda ts: [t.flatten().tolist() for t in ts]
    value = {
        "labels": LABELS, "tensors": {n: {"shape": list(T[n][0].shape), "base": T[n][0].flatten().tolist(), "inputs": plain(T[n][1:])} for n in NAMES},
        "fisher": {n: plain(f) for n, f in FISHER.items()}, "gram": {n: plain(f) for n, f in GRAM.items()}, "cases": cases,
    }
    # Seven digits say which float32 it is within a part in ten million.
    OUT.write_text(json.dumps(value, separators=(",", ":")) + "\n")
    print(OUT, OUT.stat().st_size, "bytes,", len(cases), "cases")


main()
