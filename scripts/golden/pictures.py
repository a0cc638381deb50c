"""Picture files of every form that we read, with the bytes that PIL makes of them, and the same pictures in parquet.

    .venv/bin/pip install pillow pyarrow && .venv/bin/python scripts/golden/pictures.py

Writes test/golden/pictures/: the files, and pictures.json with each one's size and RGB bytes (base64).
"""
import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

OUT = Path(__file__).resolve().parents[2] / "test" / "golden" / "pictures"
shutil.rmtree(OUT, ignore_errors=True)
OUT.mkdir(parents=True)
rng = np.random.default_rng(0)


def drawn(height, width, channels):
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([127 + 100 * np.sin(x / (3 + k) + y / (5 - k)) for k in range(channels)], -1)
    return np.clip(waves + rng.normal(0, 8, waves.shape), 0, 255).astype(np.uint8)


colour = Image.fromarray(drawn(13, 18, 3))
grey = Image.fromarray(drawn(11, 14, 1)[:, :, 0])
for name, options in {"half": dict(subsampling=2), "full": dict(subsampling=0), "across": dict(subsampling=1), "progressive": dict(progressive=True)}.items():
    colour.save(OUT / f"{name}.jpg", quality=85, **options)
grey.save(OUT / "grey.jpg")
colour.save(OUT / "colour.png")
grey.save(OUT / "grey.png")
Image.fromarray(drawn(11, 14, 4)).save(OUT / "transparent.png")
colour.convert("RGBA").convert("LA").save(OUT / "grey-transparent.png")
colour.convert("P").save(OUT / "palette.png")
colour.convert("P").save(OUT / "palette-transparent.png", transparency=3)
colour.convert("1").save(OUT / "bits.png")
colour.convert("CMYK").save(OUT / "cmyk.jpg")

found = {}
for path in sorted(OUT.glob("*.*")):
    image = Image.open(path)
    if image.mode == "CMYK":
        continue
    rgb = np.asarray(image.convert("RGB"))
    found[path.name] = {"height": rgb.shape[0], "width": rgb.shape[1], "rgb": base64.b64encode(rgb.tobytes()).decode()}
(OUT / "pictures.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")

names = ["colour.png", "half.jpg", "grey.png"]
images = pa.array([{"bytes": (OUT / name).read_bytes(), "path": name} for name in names])
pq.write_table(pa.table({"image": images, "label": pa.array([2, 0, 1], pa.int64())}), OUT / "pictures.parquet", compression="snappy")
texts = pa.table({"premise": ["A.", "B, ü.", "C."], "hypothesis": ["D.", "E.", "F."], "idx": pa.array([0, 1, 2], pa.int32()), "label": pa.array([0, 1, 2], pa.int64())})
pq.write_table(texts, OUT / "texts.parquet", compression="zstd", row_group_size=2)
answers = pa.table({"question": ["Who?", "What?"], "background": ["b", "c"], "situation": ["s", "t"], "answers": pa.array([{"text": ["me", "I"]}, {"text": ["that"]}])})
pq.write_table(answers, OUT / "answers.parquet", compression="gzip")
print(sum(p.stat().st_size for p in OUT.iterdir()) // 1024, "KB", sorted(found))
