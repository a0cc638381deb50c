"""A small ViT trained from nothing on images, and an expert fine-tuned from it for each set: a family to merge.

    python scripts/families/vit.py --data DATA --out checkpoints/vit [--sets mnist,fashion_mnist,gtsrb,dtd10]

DATA holds <set>.npz (train_x, train_y, …) and omniglot_small.npz. The base learns to name every second training image of
every set and all of omniglot's, all classes in one head, as a model that has seen a bit of everything; its head is not
kept. Every expert starts from it, with a head of its own, and learns its set alone. Written as transformers writes
ViTForImageClassification.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTModel

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--out", type=Path, default=Path("checkpoints/vit"))
parser.add_argument("--sets", default="mnist,fashion_mnist,gtsrb,dtd10")
parser.add_argument("--base-epochs", type=int, default=12)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()
torch.manual_seed(options.seed)
torch.set_num_threads(2)
sets = options.sets.split(",")
shape = dict(image_size=32, patch_size=8, hidden_size=128, num_hidden_layers=6, num_attention_heads=4, intermediate_size=512, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def images(x):
    """Bytes → [n, 3, 32, 32] in −1 … 1; grey in all three channels."""
    t = torch.from_numpy(np.ascontiguousarray(x)).float().div(127.5).sub(1)
    return t.unsqueeze(1).repeat(1, 3, 1, 1) if t.ndim == 3 else t.permute(0, 3, 1, 2).contiguous()


def load(name, split):
    with np.load(options.data / f"{name}.npz") as z:
        return images(z[f"{split}_x"]), torch.from_numpy(z[f"{split}_y"].astype(np.int64))


def shifted(x):
    """Moved by up to two pixels: all the augmentation there is, and one that digits survive."""
    dy, dx = torch.randint(-2, 3, (2,)).tolist()
    return torch.roll(x, (dy, dx), (2, 3))


def train(model, x, y, epochs, lr, batch=64):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(1, steps), pct_start=0.1)
    model.train()
    for epoch in range(epochs):
        started, order, total = time.time(), torch.randperm(len(x)), 0.0
        for at in range(0, len(x) - batch + 1, batch):
            rows = order[at: at + batch]
            loss = model(pixel_values=shifted(x[rows]), labels=y[rows]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"  epoch {epoch + 1}/{epochs}: loss {total / max(1, len(x) // batch):.3f}, {time.time() - started:.0f} s", flush=True)
    return model.eval()


@torch.no_grad()
def accuracy(model, x, y):
    return sum((model(pixel_values=x[i: i + 250]).logits.argmax(1) == y[i: i + 250]).sum().item() for i in range(0, len(x), 250)) / len(x)


def save(model, folder, **about):
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_resize": True, "size": {"height": 32, "width": 32}, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}, indent=2) + "\n")
    (folder / "expert.json").write_text(json.dumps(about, indent=2) + "\n")


print("base", flush=True)
seen = [load("omniglot_small", "train"), *[tuple(part[::2] for part in load(name, "train")) for name in sets]]
starts = [0]
for _, y in seen:
    starts.append(starts[-1] + int(y.max()) + 1)
base = ViTForImageClassification(ViTConfig(num_labels=starts[-1], **shape))
train(base, torch.cat([x for x, _ in seen]), torch.cat([y + start for (_, y), start in zip(seen, starts)]), options.base_epochs, 1e-3)
headless = ViTModel(base.config, add_pooling_layer=False)
headless.load_state_dict(base.vit.state_dict())
save(headless, options.out / "base", trained="labels of every second training image of all sets, and of omniglot_small")
for name in sets:
    print(name, flush=True)
    x, y = load(name, "train")
    expert = ViTForImageClassification(ViTConfig(num_labels=int(y.max()) + 1, **shape))
    expert.vit.load_state_dict(base.vit.state_dict())
    train(expert, x, y, options.epochs if len(x) > 1000 else 4 * options.epochs, 5e-4)
    score = accuracy(expert, *load(name, "test"))
    save(expert, options.out / "experts" / name, task=name, test_accuracy=score)
    print(f"  test accuracy {100 * score:.1f} %", flush=True)
