"""What `train-merge --tasks …` does, in plain Python with a way of torch_peers.py: for command.ts.

    torch_command.py --way packed --family FOLDER --tasks rte,cb --data FOLDER --out FOLDER [--steps 100] [--merge-only]

Searches λ, trains the coefficients, writes the merged model, measures it and the usual baselines on the test files.
--merge-only: no search, no held-out examples, no tests. The last line on stdout is JSON.
"""
import argparse
import copy
import json
import os
import random
import resource
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch_peers import Task, Way
from transformers import BertModel

batch_size, per_task, held_out, learning_rate, score_every, longest = 16, 32, 8, 0.03, 10, 128

parser = argparse.ArgumentParser()
for option in ("way", "family", "tasks", "data", "out"):
    parser.add_argument(f"--{option}", required=True)
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--merge-only", action="store_true")
options = parser.parse_args()
names = options.tasks.split(",")
seconds = {}


def stage(name, work):
    start = time.perf_counter()
    out = work()
    seconds[name] = time.perf_counter() - start
    return out


def load():
    experts = [os.path.join(options.family, "experts", name) for name in names]
    way = Way(options.way, os.path.join(options.family, "base"), experts)
    tokenizer = Tokenizer.from_file(os.path.join(options.family, "base", "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(min(longest, way.family.model.config.max_position_embeddings))
    return way, tokenizer


def read(name, split):
    """A task's examples: (rows of (ids, types), label)."""
    def row(*texts):
        encoding = tokenizer.encode(*texts)
        return encoding.ids, encoding.type_ids

    examples = []
    for line in open(os.path.join(options.data, name, f"{split}.jsonl")):
        example = json.loads(line)
        if "choices" in example:
            rows = [row(example["text_a"], choice) for choice in example["choices"]]
        else:
            rows = [row(*(example[key] for key in ("text_a", "text_b") if key in example))]
        examples.append((rows, example["label"]))
    return examples


def task_of(examples):
    choices = len(examples[0][0]) if len(examples[0][0]) > 1 else None
    return Task([row for rows, _ in examples for row in rows], [label for _, label in examples], choices)


def longest_row(example):
    return max(len(ids) for ids, _ in example[0])


def batches(examples, seed):
    """Endless: each epoch shuffled, of like length within a batch."""
    draw = random.Random(seed)
    while True:
        order = sorted(draw.sample(examples, len(examples)), key=longest_row)
        epoch = [task_of(order[at : at + batch_size]) for at in range(0, len(order), batch_size)]
        yield from draw.sample(epoch, len(epoch))


def logits(tasks, heads, coefficients):
    """Every task's logits, under weights that are merged once a layout."""
    out = []
    for layout, members in way.lay_out(tasks):
        weights = way.merge(coefficients, layout.only)
        out += way.logits(layout, [tasks[i] for i in members], [heads[i] for i in members], weights)
    return out


class Scorer:
    """Loss and accuracy of a task's examples, laid out once, in batches of like length."""

    def __init__(self, examples, head, size=64):
        order = sorted(examples, key=longest_row)
        self.head, self.count = head, len(examples)
        self.batches = [task_of(order[at : at + size]) for at in range(0, len(order), size)]
        self.layouts = [way.lay_out([batch], by_rows=False)[0][0] for batch in self.batches]

    @torch.no_grad()
    def __call__(self, weights):
        loss = right = 0
        for layout, batch in zip(self.layouts, self.batches):
            scores, labels = way.logits(layout, [batch], [self.head], weights)[0], torch.tensor(batch.labels)
            loss += F.cross_entropy(scores, labels, reduction="sum").item()
            right += (scores.argmax(1) == labels).sum().item()
        return loss / self.count, right / self.count


def merged_by(column):
    """Weights with the same coefficients in every layer."""
    with torch.no_grad():
        return way.merge(torch.tensor(column).expand(len(way.family.deltas), -1))


def search():
    """λ of task arithmetic: the best mean accuracy on the validation examples, then the lower loss."""
    def rank(value):
        losses, accuracies = zip(*(scorer(merged_by([value] * len(names))) for scorer in scorers))
        return sum(accuracies), -sum(losses)

    scorers = [Scorer(examples, head) for examples, head in zip(validation, way.family.heads)]
    return max((step / 10 for step in range(1, 11)), key=rank)


def train(start):
    """The coefficients with the lowest held-out loss, or the last where nothing is held out."""
    raw = torch.full((len(way.family.deltas), len(names)), start).atanh().requires_grad_()
    optimizer = torch.optim.AdamW([raw], lr=learning_rate, weight_decay=0.0)
    held = 0 if options.merge_only else held_out
    judges = [Scorer(examples[:held], head) for examples, head in zip(validation, way.family.heads)] if held else []
    supply = [batches(examples[held:], name) for examples, name in zip(validation, names)]
    best = (float("inf"), raw)

    def score():
        with torch.no_grad():
            weights = way.merge(torch.tanh(raw))
        return min(best, (sum(judge(weights)[0] for judge in judges), raw.detach().clone()), key=lambda pair: pair[0])

    if held:
        best = score()
    for step in range(1, options.steps + 1):
        tasks = [next(batch) for batch in supply]
        optimizer.zero_grad()
        found = logits(tasks, way.family.heads, torch.tanh(raw))
        sum(F.cross_entropy(scores, torch.tensor(task.labels)) for scores, task in zip(found, tasks)).backward()
        optimizer.step()
        if held and (step % score_every == 0 or step == options.steps):
            best = score()
    return torch.tanh(best[1]).detach()


@torch.no_grad()
def write(coefficients):
    """The merged model as transformers writes it, in the base's own type, and each task's head beside it."""
    stored = json.load(open(os.path.join(options.family, "base", "config.json")))["dtype"]
    merged = copy.deepcopy(way.family.model)
    merged.load_state_dict(way.merge(coefficients))
    merged.to(getattr(torch, stored)).save_pretrained(options.out)
    tokenizer.save(os.path.join(options.out, "tokenizer.json"))
    for name, (weight, bias) in zip(names, way.family.heads):
        os.makedirs(os.path.join(options.out, "heads", name))
        head = {"classifier.weight": weight.contiguous(), "classifier.bias": bias.contiguous()}
        save_file(head, os.path.join(options.out, "heads", name, "model.safetensors"))


def test(lambda_):
    """Mean test accuracy of the written model and of the baselines."""
    k = len(names)
    scorers = [Scorer(read(name, "test"), head) for name, head in zip(names, way.family.heads)]
    mean = lambda weights: sum(scorer(weights)[1] for scorer in scorers) / k
    individual = [scorer(merged_by([float(j == i) for j in range(k)]))[1] for i, scorer in enumerate(scorers)]
    return {
        "individual": sum(individual) / k,
        "pretrained": mean(merged_by([0.0] * k)),
        "average": mean(merged_by([1 / k] * k)),
        "task-arithmetic": mean(merged_by([lambda_] * k)),
        "supermerge": mean(BertModel.from_pretrained(options.out, dtype=torch.float32).state_dict()),
    }


way, tokenizer = stage("load", load)
validation = stage("read", lambda: [read(name, "validation")[:per_task] for name in names])
lambda_ = 0.3 if options.merge_only else stage("search", search)
coefficients = stage("train", lambda: train(min(lambda_, 0.9)))
stage("write", lambda: write(coefficients))
accuracies = {} if options.merge_only else stage("test", lambda: test(lambda_))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peakBytes": peak, "lambda": lambda_, "accuracies": accuracies}))
