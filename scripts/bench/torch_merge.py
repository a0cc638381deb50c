"""A merge and its products in PyTorch, in GB/s, beside a copy on the same device: for scripts/bench/merge.ts.

    torch_merge.py cpu|cuda PARAMETERS K

A line of JSON on stdout after each measurement: the last one has all of them.
"""
import json
import sys
import time

import torch

device, parameters, k = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
size = 4 * 2**20
count = max(1, round(parameters / size))
repeats = 8 if device == "cuda" else 1
wait = torch.cuda.synchronize if device == "cuda" else lambda: None


def seconds(work):
    times = []
    for _ in range(7):
        wait()
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        wait()
        times.append((time.perf_counter() - start) / repeats)
    return sorted(times[2:])[2]


def merge(base, stack, c):
    return base + (c.to(stack.dtype) @ stack).float()


def products(gradient, stack):
    return stack @ gradient.to(stack.dtype)


with torch.no_grad():
    a = torch.rand(int(parameters * (k + 2) / 2), device=device)
    b = torch.empty_like(a)
    copy = 8 * a.numel() / seconds(lambda: b.copy_(a)) / 1e9
    del a, b
    c = torch.full((k,), 0.3, device=device)
    bases = [torch.rand(size, device=device) for _ in range(count)]
    rows = []

    def tell():
        print(json.dumps({"copy": copy, "rows": rows}), flush=True)

    tell()
    for way, packing, dtype in (
        ("eager", "f32", torch.float32), ("eager", "bf16", torch.bfloat16),
        ("compiled", "f32", torch.float32), ("compiled", "bf16", torch.bfloat16),
    ):
        stacks = [torch.rand(k, size, device=device).to(dtype) for _ in range(count)]
        read = count * size * k * stacks[0].element_size()
        try:
            make = (lambda f: torch.compile(f, dynamic=False)) if way == "compiled" else (lambda f: f)
            m, p = make(merge), make(products)
            merged = seconds(lambda: [m(x, s, c) for x, s in zip(bases, stacks)])
            multiplied = seconds(lambda: [p(x, s) for x, s in zip(bases, stacks)])
            rows.append({
                "way": way, "packing": packing,
                "merge": (read + 8 * count * size) / merged / 1e9, "products": (read + 4 * count * size) / multiplied / 1e9,
            })
            tell()
        except Exception as error:  # no compiler on this machine, say: the others count all the same
            print(f"{way}, {packing} left out: {str(error).splitlines()[0]}", file=sys.stderr)
        del stacks
