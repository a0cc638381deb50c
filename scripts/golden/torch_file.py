"""Small files of torch.save, and what is in them as JSON: test/golden/torch.

    python scripts/golden/torch_file.py

Made with torch 2.11; every type that a weight may have, a view of a storage, two names of one tensor, a parameter, a
scalar and an empty tensor; then files that must be refused.
"""
import json
from collections import OrderedDict
from pathlib import Path

import torch

out = Path(__file__).resolve().parents[2] / "test" / "golden" / "torch"
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
table = torch.randn(4, 3)
weights = OrderedDict(
    [
        ("f32", torch.randn(2, 3)),
        ("f16", torch.randn(5).half()),
        ("bf16", torch.randn(2, 2).bfloat16()),
        ("f64", torch.randn(3).double()),
        ("i64", torch.tensor([1, -2, 2**40])),
        ("bool", torch.tensor([True, False])),
        ("u8", torch.tensor([0, 255], dtype=torch.uint8)),
        ("rows", table[1:3]),
        ("tied", table),
        ("tied_too", table),
        ("parameter", torch.nn.Parameter(torch.ones(2))),
        ("scalar", torch.tensor(3.5)),
        ("empty", torch.zeros(0, 4)),
    ]
)
module = torch.nn.Linear(2, 2)
torch.save(weights, out / "weights.bin")
torch.save(module.state_dict(), out / "module.bin")
expected = {
    name: {"shape": list(t.shape), "values": [float(x) for x in t.detach().double().flatten()]}
    for name, t in weights.items()
}
(out / "weights.json").write_text(json.dumps(expected, indent=1) + "\n")
state = {name: {"shape": list(t.shape), "values": [float(x) for x in t.double().flatten()]} for name, t in module.state_dict().items()}
(out / "module.json").write_text(json.dumps(state, indent=1) + "\n")


class Evil:
    def __reduce__(self):
        return (print, ("run",))


torch.save({"w": torch.ones(2), "x": Evil()}, out / "evil.bin")
torch.save({"w": torch.ones(2, 3).t()}, out / "view.bin")
torch.save({"state_dict": {"w": torch.ones(2)}}, out / "nested.bin")
torch.save({"w": torch.ones(2)}, out / "legacy.bin", _use_new_zipfile_serialization=False)
torch.save(torch.nn.Linear(2, 2), out / "object.bin")
