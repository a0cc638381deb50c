"""Arrow files as pyarrow writes them, and their rows: a file and a stream of two batches, columns of many types.

    .venv/bin/python scripts/golden/arrow.py
"""
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc as ipc

OUT = Path(__file__).resolve().parents[2] / "test" / "golden" / "arrow"
OUT.mkdir(exist_ok=True)
table = pa.table(
    {
        "text": ["a", "büß", None],
        "label": pa.array([1, 2, 3], pa.int64()),
        "tags": [["x"], [], ["y", "z"]],
        "ids": pa.array([[1, 2], [3], []], pa.list_(pa.int64())),
        "answers": [{"text": ["a"], "answer_start": [0]}, {"text": [], "answer_start": []}, {"text": ["b"], "answer_start": [7]}],
        "word": pa.array(["u", "v", "u"]).dictionary_encode(),
        "isTrue": [True, False, None],
        "nothing": pa.nulls(3),
        "pair": pa.array([[1.0, 2.0], [3.0, 4.0], [5.5, 6.0]], pa.list_(pa.float32(), 2)),
        "long": pa.array(["q", "r", "s"], pa.large_string()),
        "view": pa.array(["q" * 20, "r", "s"], pa.string_view()),
        "half": pa.array([0.5, -1.0, 2.0], pa.float64()),
    }
)
for name, make in [("file", ipc.new_file), ("stream", ipc.new_stream)]:
    with make(str(OUT / f"{name}.arrow"), table.schema) as writer:
        writer.write_table(table.slice(0, 2))
        writer.write_table(table.slice(2))
(OUT / "rows.json").write_text(json.dumps(table.to_pylist(), ensure_ascii=False, indent=1) + "\n")
