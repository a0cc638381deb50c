"""Runs one mergekit file and prints the seconds that its merge took, imports not counted: JSON on the last line."""
import json
import sys
import time

import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner

# mergekit 0.1.5 stumbles over BERT's optional position_ids (it adds a tuple to a list).
plan_tensor = MergePlanner.plan_tensor
MergePlanner.plan_tensor = lambda self, weight, *rest, **named: None if weight.name.endswith("position_ids") else plan_tensor(self, weight, *rest, **named)

config, out = sys.argv[1:]
started = time.perf_counter()
run_merge(MergeConfiguration.model_validate(yaml.safe_load(open(config))), out, MergeOptions(copy_tokenizer=False, cuda=False, write_model_card=False))
print(json.dumps({"seconds": time.perf_counter() - started}))
