"""An event file as TensorBoard's own writer makes it.

    .venv/bin/pip install tensorboard && .venv/bin/python scripts/golden/events.py
"""
import base64
import io
import json
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

TIME = 1700000000.25
scalars = [("loss/training", 0, 1.5), ("loss/training", 1, 0.1), ("accuracy/é", 300, -2.75), ("x", 5_000_000_000, 0.0)]
file = io.BytesIO()
writer = RecordWriter(file)
writer.write(Event(wall_time=TIME, file_version="brain.Event:2").SerializeToString())
for tag, step, value in scalars:
    writer.write(Event(wall_time=TIME, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])).SerializeToString())
content = {"time": TIME, "scalars": [{"tag": t, "step": s, "value": v} for t, s, v in scalars], "bytes": base64.b64encode(file.getvalue()).decode()}
(Path(__file__).resolve().parents[2] / "test" / "golden" / "events.json").write_text(json.dumps(content) + "\n")
