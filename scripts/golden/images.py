"""Golden values of image preparation: transformers' processors (PIL's arithmetic) on small pictures.

    .venv/bin/pip install pillow && .venv/bin/python scripts/golden/images.py
"""
import json
from pathlib import Path

import numpy as np
from transformers import CLIPImageProcessorPil, ViTImageProcessorPil

OUT = Path(__file__).resolve().parents[2] / "test" / "golden" / "images.json"
rng = np.random.default_rng(0)
cases = []
for height, width in [(32, 32), (20, 31), (61, 47), (8, 8)]:
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    for name, processor in {
        "vit": ViTImageProcessorPil(size={"height": 16, "width": 16}),
        "vit bicubic": ViTImageProcessorPil(size={"height": 24, "width": 24}, resample=3, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7]),
        "clip": CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        "no change": ViTImageProcessorPil(do_resize=False, do_normalize=False),
    }.items():
        size = {"vit": 16, "vit bicubic": 24, "clip": 16, "no change": height}[name]
        if name == "no change" and height != width:
            continue
        out = processor(pixels, return_tensors="np")["pixel_values"][0]
        kept = json.loads(processor.to_json_string())
        cases.append({"name": f"{name}, {height} × {width}", "height": height, "width": width, "pixels": pixels.flatten().tolist(), "processor": kept, "size": size, "values": [round(float(v), 6) for v in out.flatten()]})
OUT.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
print(len(cases), OUT.stat().st_size // 1024, "KB")
