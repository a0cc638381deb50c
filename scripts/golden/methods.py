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
from fusion_bench.method.isotropic_merging.iso_utils import iso_c as fusion_iso_c, iso_cts as fusion_iso_cts
from fusion_bench.method.knots.knots_utils import subspace_alignment
from fusion_bench.method.tall_mask.task_arithmetic import generate_task_masks as fusion_mask
from fusion_bench.method.task_singular_vector.utils.TSVM_utils import compute_and_sum_svd_mem_reduction as fusion_tsv
from fusion_bench.method.wudi.wudi import wudi_merging as fusion_wudi

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
    if not has_directions(b):
        return b + scale * sum(ds) / len(ds)
    u, s, v = torch.linalg.svd(sum(ds).double(), full_matrices=False)
    return b + scale * (u @ (s.mean() * v))


def tsv_m(b, ds, scale):
    """Gargiulo et al. 2025; fusion_bench's compute_and_sum_svd_mem_reduction. Directions without a value are none of a task's."""
    if not has_directions(b):
        return b + scale * sum(ds) / len(ds)
    share = min(b.shape) // len(ds)
    us, ss, vs = zip(*(ranked(d, share) for d in ds))
    u, s, v = torch.cat(us, 1), torch.cat(ss), torch.cat(vs, 0)
    return b + scale * (near(u) * s) @ near(v) if s.numel() else b.clone()


def has_directions(b):
    return b.dim() == 2 and 0 not in b.shape


def ranked(m, most):
    """Leading singular vectors; directions without a value are none."""
    u, s, v = torch.linalg.svd(m.double(), full_matrices=False)
    count = min(most, int((s > 1e-7 * s[0]).sum()) if s[0] > 0 else 0)
    return u[:, :count], s[:count], v[:count]


def near(m):
    """The nearest orthonormal matrix. Directions that tasks share exactly are one: what is left of them is any."""
    p, q, r = torch.linalg.svd(m, full_matrices=False)
    count = int((q > 1e-7 * q[0]).sum()) if q.numel() else 0
    return p[:, :count] @ r[:count]


def iso_cts(b, ds, scale, common):
    """Marczak et al. 2025; fusion_bench's iso_cts."""
    if not has_directions(b):
        return b + scale * sum(ds) / len(ds)
    least = min(b.shape)
    share = round((least - int(least * common)) / len(ds))
    cu, cs, cv = ranked(sum(ds), least - share * len(ds))
    own = [ranked(d.double() - cu @ cu.T @ d.double(), share) for d in ds]
    us, ss, vs = zip(*own, (cu, cs, cv))
    return b + scale * (torch.cat(ss).sum() / least) * near(torch.cat(us, 1)) @ near(torch.cat(vs, 0))


def cart(b, ds, scale, rank):
    """Choi et al. 2024, as AdaRank's authors run it: the average, and what each differs from it by, truncated."""
    mean = sum(d.double() for d in ds) / len(ds)
    if not has_directions(b):
        return b + mean
    most = 0 if rank == 0 else max(1, int(rank * min(b.shape)))
    parts = [ranked(d.double() - mean, most) for d in ds]
    return b + mean + scale * sum((u * s) @ v for u, s, v in parts)


def wudi(b, ds, scale):
    """Cheng et al. 2025: what the sum of (D - d) d.T squared over d's own square is least for."""
    if not has_directions(b):
        return b + scale * sum(ds) / len(ds)
    ds = [d.double() for d in ds]
    grams = [d.T @ d / (d**2).sum() if d.any() else 0 * d.T @ d for d in ds]
    return b + scale * sum(d @ g for d, g in zip(ds, grams)) @ torch.linalg.pinv(sum(grams), rtol=1e-9, hermitian=True)


def wudi_descent(b, ds, scale, steps, rate):
    """fusion_bench's wudi_merging in float64, at another learning rate where asked."""
    if not has_directions(b):
        return b + scale * sum(ds) / len(ds)
    moved = [d.double() for d in ds if d.any()]
    adam, torch.optim.Adam = torch.optim.Adam, lambda ps, lr, weight_decay: adam(ps, lr=rate, weight_decay=weight_decay)
    found = fusion_wudi([{"x": d} for d in moved], "cpu", steps)["x"].detach()
    torch.optim.Adam = adam
    return b + scale * found


def consensus_ta(b, ds, scale, mask, least):
    """Wang et al. 2024, their generate_task_masks and construct_consensus_mask."""
    total = sum(ds)
    held = sum((d.abs() > (total - d).abs() * m).float() for d, m in zip(ds, mask))
    return b + scale * total * (held >= least)


def knots(scale, density):
    """Stoica et al. 2025: TIES of all layers' aligned task vectors; other tensors by their mean."""
    layers = [n for n in NAMES if has_directions(T[n][0])]
    left, rows = {}, {n: [] for n in layers}
    for n in layers:
        ds = deltas(T[n][0], T[n][1:])
        u, s, v = ranked(torch.cat(ds, 1), min(T[n][0].shape[0], 10**9))
        left[n] = u
        # Of a task vector that is 0 there is nothing, not its rounding.
        rows[n] = [(s.unsqueeze(1) * part * (d != 0).any()).float() for d, part in zip(ds, torch.split(v, T[n][0].shape[1], dim=1))]
    flat = torch.stack([torch.cat([rows[n][i].flatten() for n in layers]) for i in range(len(LABELS))])
    kept = flat.shape[1] - int(flat.shape[1] * density)
    trimmed = flat * (flat.abs() >= (flat.abs().kthvalue(kept, dim=1, keepdim=True).values if kept else 0))
    sign = torch.sign(trimmed.sum(0))
    sign[sign == 0] = torch.sign(sign.sum())
    agree = trimmed * torch.where(sign > 0, trimmed > 0, trimmed < 0)
    merged = agree.sum(0) / (agree != 0).sum(0).clamp(min=1)
    out, at = {}, 0
    for n in NAMES:
        b, xs = T[n][0], T[n][1:]
        if n not in left:
            out[n] = b + scale * sum(deltas(b, xs)) / len(xs)
            continue
        size = rows[n][0].numel()
        out[n] = b + scale * left[n] @ merged[at : at + size].reshape(rows[n][0].shape).double()
        at += size
    return out


def depth(name, last):
    """LiNeS: 1 in the first block, `last` in the last."""
    blocks = [int(n.split(".")[2]) for n in NAMES if n.startswith("encoder.layer.")]
    return 1 + (last - 1) * int(name.split(".")[2]) / max(blocks) if name.startswith("encoder.layer.") else 1


def as_fusion_bench_has_them():
    """Ours beside fusion_bench's, on tensors whose task vectors have every direction."""
    names = [n for n in NAMES if n.endswith("dense.weight")]
    for n in names:
        b, ds = T[n][0].double(), [d.double() for d in deltas(T[n][0], T[n][1:])]
        vectors = [{n: d} for d in ds]
        pairs = {
            "iso_c": (iso_c(b, ds, 1.0), fusion_iso_c([dict(v) for v in vectors], "cpu")),
            "iso_cts": (iso_cts(b, ds, 1.0, 0.8), fusion_iso_cts([dict(v) for v in vectors], 0.8, "cpu")),
            "tsv_m": (tsv_m(b, ds, 1.0), fusion_tsv([dict(v) for v in vectors], accelerator="cpu")),
        }
        for name, (own, theirs) in pairs.items():
            error = float((own - b - theirs[n]).abs().max())
            assert error < 1e-9, (n, name, error)
        u, s, vs = subspace_alignment(ds)
        assert len(vs) == len(ds) and float((u @ (s.unsqueeze(1) * vs[0]) - ds[0]).abs().max()) < 1e-9
        masks = [fusion_mask({n: b + sum(ds)}, {n: b + d}, {n: b}, 0.4)[n] for d in ds]
        own = consensus_ta(b, ds, 1.0, [0.4] * 3, 2) - b
        assert float((own - sum(ds) * (sum(masks) >= 2)).abs().max()) < 1e-9


def tsv_part(b, ds, which, scale):
    """A task's part of tsv_m: its own values, 0 for the others'."""
    if not has_directions(b):
        return b + scale * ds[which] / len(ds)
    parts = [ranked(d, min(b.shape) // len(ds)) for d in ds]
    us, ss, vs = zip(*parts)
    s = torch.cat([s if i == which else 0 * s for i, s in enumerate(ss)])
    return b + scale * (near(torch.cat(us, 1)) * s) @ near(torch.cat(vs, 0)) if s.numel() else b.clone()


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

    def case(method, values, out, inputs=None, but=()):
        cases.append({"method": method, "values": values, "inputs": inputs or [0, 1, 2], "out": {n: out[n].float().flatten().tolist() for n in NAMES if n not in but}})

    case("average", {}, each(lambda n, b, xs: sum(x.double() for x in xs) / 3))
    case("linear", {"weight": [1, 2, -0.5]}, each(lambda n, b, xs: (xs[0] + 2 * xs[1] - 0.5 * xs[2]) / 2.5))
    case("linear", {"weight": [0.2, 0.3, 0.1], "normalize": False}, each(lambda n, b, xs: 0.2 * xs[0] + 0.3 * xs[1] + 0.1 * xs[2]))
    case("task-arithmetic", {"lambda": 0.3}, each(lambda n, b, xs: add_up(b, deltas(b, xs), scale=0.3)))
    case("task-arithmetic", {"lambda": 0.5, "weight": [1, 2, 0.5], "normalize": True}, each(lambda n, b, xs: add_up(b, deltas(b, xs), [1, 2, 0.5], 0.5, True)))
    for combine, scale, density in [("mean", 1.0, 0.2), ("sum", 0.3, 0.2), ("mean", 1.5, 0.5), ("mean", 1.0, 1.0)]:
        case("ties", {"combine": combine, "lambda": scale, "density": density}, ties_original(density, combine, scale)[0])
    for which in range(3):
        case("treated", {"which": which, "by": "ties", "density": 0.2}, {n: xs[which] for n, xs in ties_original(0.2, "sum", 1.0)[1].items()})
    for which in range(3):
        case("treated", {"which": which, "by": "tsv-m", "scale": 2}, each(lambda n, b, xs: tsv_part(b, deltas(b, xs), which, 2)))
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
    as_fusion_bench_has_them()
    for scale, common in ((1.0, 0.8), (0.4, 0.5)):
        case("iso-cts", {"lambda": scale, "common": common}, each(lambda n, b, xs: iso_cts(b, deltas(b, xs), scale, common)))
    # Halves are rounded to even there: a share of 2.5 directions is 2.
    case("iso-cts", {"common": 0.2}, each(lambda n, b, xs: iso_cts(b, deltas(b, xs[:2]), 1.0, 0.2)), [0, 1])
    for scale, rank in ((1.0, 0.16), (2.3, 0.5), (1.5, 1), (1.5, 0)):
        case("cart", {"lambda": scale, "rankRatio": rank}, each(lambda n, b, xs: cart(b, deltas(b, xs), scale, rank)))
    for scale in (1.0, 0.4):
        case("wudi", {"lambda": scale}, each(lambda n, b, xs: wudi(b, deltas(b, xs), scale)))
    # Where task vectors cancel, the gradient is rounding, and Adam makes steps of it.
    for steps, rate in ((300, 1e-5), (60, 1e-3)):
        case("wudi", {"by": "descent", "steps": steps, "rate": rate}, each(lambda n, b, xs: wudi_descent(b, deltas(b, xs), 1.0, steps, rate)), but=["opposed.weight"])
    for mask, least in (([0.4] * 3, 2), ([0.2, 0.6, 1.5], 1), ([1.0] * 3, 3)):
        case("consensus-ta", {"lambda": 0.4, "mask": mask, "least": least}, each(lambda n, b, xs: consensus_ta(b, deltas(b, xs), 0.4, mask, least)))
    for scale, density in ((1.0, 0.2), (0.6, 0.5), (1.0, 1.0)):
        # Where task vectors cancel, the rounding of their singular vectors elects the signs.
        case("knots", {"lambda": scale, "density": density}, knots(scale, density), but=["opposed.weight"])
    for last in (3, 0.5):
        case("lines", {"lambda": 0.3, "lines": last}, each(lambda n, b, xs: b + 0.3 * depth(n, last) * sum(deltas(b, xs))))
    case("ties", {"density": 0.2, "lines": 2}, (lambda plain: {n: T[n][0] + depth(n, 2) * (plain[n] - T[n][0]) for n in NAMES})(ties_original(0.2, "mean", 1.0)[0]))
    case("average", {"lines": 2, "dareP": 0.5, "seed": 5}, each(lambda n, b, xs: b + depth(n, 2) * sum(dare(d, n, l, 0.5, seed=5) for d, l in zip(deltas(b, xs), LABELS)) / 3))
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
