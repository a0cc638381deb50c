"""The ways in which PyTorch merges and runs a BERT family beside train-merge (README.md says what each is).

A way is written as stacked|adamerging|bucketed|packed, each with +compile and +tf32 behind it.
"""
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
import transformers
from torch.func import functional_call
from transformers import BertModel

ways = ("stacked", "adamerging", "bucketed", "packed")


@dataclass
class Family:
    """A base, every expert's task vector as one stack a tensor [k, ...], and the experts' heads."""

    model: BertModel
    base: dict
    deltas: dict
    heads: list


@dataclass
class Task:
    """A batch: rows of (ids, types); `choices` rows an example, or None where the head gives the classes."""

    rows: list
    labels: list
    choices: int | None


def load_family(base_folder, expert_folders, device="cpu", keep_unchanged=False):
    """`keep_unchanged`: with the tensors that no expert changed, as AdaMerging's code has them."""
    options = {"dtype": torch.float32}
    model = BertModel.from_pretrained(base_folder, **options).to(device).eval().requires_grad_(False)
    base = model.state_dict()
    deltas = {name: value.new_empty(len(expert_folders), *value.shape) for name, value in base.items()}
    heads = []
    for i, folder in enumerate(expert_folders):
        architecture = transformers.AutoConfig.from_pretrained(folder).architectures[0]
        expert = getattr(transformers, architecture).from_pretrained(folder, **options).to(device)
        expert.requires_grad_(False)
        for name, value in expert.bert.state_dict().items():
            torch.sub(value, base[name], out=deltas[name][i])
        heads.append((expert.classifier.weight, expert.classifier.bias))
    if not keep_unchanged:
        deltas = {name: delta for name, delta in deltas.items() if delta.any()}
    return Family(model, base, deltas, heads)


def merge_stacked(family, coefficients, only):
    """One product a tensor over the stacked task vectors. `only`: rows of a table, where no others are looked up."""
    merged = dict(family.base)
    for row, (name, deltas) in zip(coefficients.unbind(), family.deltas.items()):
        base = family.base[name]
        if name in only:
            base, deltas = base[only[name]], deltas[:, only[name]]
        merged[name] = base + (row @ deltas.flatten(1)).view_as(base)
    return merged


def merge_adamerging(family, coefficients, only):
    """The authors' forward: every tensor of every model times its coefficient, 1 for the base, in a Python sum."""
    table = torch.cat((torch.ones_like(coefficients[:, :1]), coefficients), 1)
    merged = {}
    for j, (name, deltas) in enumerate(family.deltas.items()):
        models = (family.base[name], *deltas.unbind())
        merged[name] = sum(tensor * coefficient for tensor, coefficient in zip(models, table[j]))
    return merged


def cheapest_cuts(lengths, price):
    """Ends of the runs of sorted rows for which padding is cheapest, if one more run costs `price` tokens."""
    best = [(0, [])]
    for end in range(1, len(lengths) + 1):
        padded = lengths[end - 1]
        best.append(min((best[at][0] + price + (end - at) * padded, best[at][1] + [end]) for at in range(end)))
    return best[-1][1]


def encode_padded(model, weights, ids, types, mask):
    """transformers' own BertModel over rows padded to one length → pooled [rows, width]."""
    inputs = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
    return functional_call(model, weights, (), inputs).pooler_output


def linear(weights, name, x):
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def norm(weights, name, x, config):
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], config.layer_norm_eps)


def attend(q, k, v, groups, heads):
    """Attention within each row: `groups` of rows of one length lie side by side and need no padding and no mask."""
    out = []
    parts = zip(*(x.split([rows * length for rows, length in groups]) for x in (q, k, v)))
    for (rows, length), part in zip(groups, parts):
        q, k, v = (x.view(rows, length, heads, -1).transpose(1, 2) for x in part)
        out.append(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows * length, -1))
    return torch.cat(out)


def packed_layer(config, weights, x, groups):
    """An encoder layer over a list of tokens [tokens, width]."""
    q, k, v = (linear(weights, f"attention.self.{part}", x) for part in ("query", "key", "value"))
    seen = attend(q, k, v, groups, config.num_attention_heads)
    x = norm(weights, "attention.output.LayerNorm", x + linear(weights, "attention.output.dense", seen), config)
    inner = F.gelu(linear(weights, "intermediate.dense", x))
    return norm(weights, "output.LayerNorm", x + linear(weights, "output.dense", inner), config)


class Padded:
    """Rows run through transformers' model in one or several passes, each padded to its own longest row."""

    only = {}

    def __init__(self, family, rows, passes, encode):
        self.model, self.encode = family.model, encode
        self.passes = [self.padded([rows[i] for i in indices]) for indices in passes]
        self.back = torch.tensor([i for indices in passes for i in indices], device=family.model.device).argsort()

    def padded(self, rows):
        longest = max(len(ids) for ids, _ in rows)
        fill = lambda values: [*values, *[0] * (longest - len(values))]
        parts = zip(*((fill(ids), fill(types), fill([1] * len(ids))) for ids, types in rows))
        return [torch.tensor(part, device=self.model.device) for part in parts]

    def pooled(self, weights):
        return torch.cat([self.encode(self.model, weights, *inputs) for inputs in self.passes])[self.back]


class Packed:
    """Rows as one list of tokens, sorted by length. `by_rows`: of word embeddings only those in it are merged."""

    def __init__(self, family, rows, layer, by_rows):
        self.config, self.layer = family.model.config, layer
        order = by_length(rows)
        lengths = [len(rows[i][0]) for i in order]
        self.groups = [(lengths.count(length), length) for length in sorted(set(lengths))]
        ids, types = (torch.tensor([value for i in order for value in rows[i][part]]) for part in (0, 1))
        positions = torch.cat([torch.arange(length) for length in lengths])
        first = torch.tensor([0, *lengths[:-1]]).cumsum(0)[torch.tensor(order).argsort()]
        self.only, words = {}, "embeddings.word_embeddings.weight"
        if by_rows and words in family.deltas:
            named, ids = ids.unique(return_inverse=True)
            self.only = {words: named.to(family.model.device)}
        self.inputs = [part.to(family.model.device) for part in (ids, types, positions, first)]

    def pooled(self, weights):
        ids, types, positions, first = self.inputs
        looked_up = {"word": ids, "token_type": types, "position": positions}
        x = sum(F.embedding(at, weights[f"embeddings.{name}_embeddings.weight"]) for name, at in looked_up.items())
        x = norm(weights, "embeddings.LayerNorm", x, self.config)
        for number in range(self.config.num_hidden_layers):
            own = f"encoder.layer.{number}."
            inside = {name.removeprefix(own): weight for name, weight in weights.items() if name.startswith(own)}
            x = self.layer(self.config, inside, x, self.groups)
        return torch.tanh(linear(weights, "pooler.dense", x[first]))


def by_length(rows):
    return sorted(range(len(rows)), key=lambda i: len(rows[i][0]))


class Way:
    """A way to merge a family and to run it."""

    def __init__(self, text, base_folder, expert_folders, device="cpu"):
        self.name, *extras = text.split("+")
        if self.name not in ways or not set(extras) <= {"compile", "tf32"}:
            raise ValueError(f"{text}: a way is one of {', '.join(ways)}, with +compile or +tf32 behind it")
        torch.set_float32_matmul_precision("high" if "tf32" in extras else "highest")
        compiled = torch.compile if "compile" in extras else lambda function: function
        own_loop = self.name == "adamerging"
        self.family = load_family(base_folder, expert_folders, device, keep_unchanged=own_loop)
        self.merge_function = compiled(merge_adamerging if own_loop else merge_stacked)
        # One layer is compiled and serves all of them, else the whole model.
        self.encode = compiled(packed_layer if self.name == "packed" else encode_padded)

    def lay_out(self, tasks, by_rows=True):
        """[(layout, numbers of its tasks)]: all tasks in one, but AdaMerging's loop, which takes one at a time."""
        numbers = range(len(tasks))
        members = [[i] for i in numbers] if self.name == "adamerging" else [list(numbers)]
        return [(self.layout([tasks[i] for i in group], by_rows), group) for group in members]

    def layout(self, tasks, by_rows):
        rows = [row for task in tasks for row in task.rows]
        if self.name == "packed":
            return Packed(self.family, rows, self.encode, by_rows)
        if self.name == "bucketed":
            order = by_length(rows)
            # As many tokens as a pass costs in calls: the price that src/models/layout.ts has.
            price = 2e6 / self.family.model.config.hidden_size**2
            ends = cheapest_cuts([len(rows[i][0]) for i in order], price)
        else:
            order = range(len(rows))
            ends = list(accumulate(len(task.rows) for task in tasks))
        passes = [order[start:end] for start, end in zip([0, *ends], ends)]
        return Padded(self.family, rows, passes, self.encode)

    def merge(self, coefficients, only={}):
        return self.merge_function(self.family, coefficients, only)

    def logits(self, layout, tasks, heads, weights):
        """Of every task in a layout: [examples, classes]."""
        pooled = layout.pooled(weights).split([len(task.rows) for task in tasks])
        outputs = [F.linear(features, *head) for features, head in zip(pooled, heads)]
        return [out.view(-1, task.choices) if task.choices else out for out, task in zip(outputs, tasks)]
