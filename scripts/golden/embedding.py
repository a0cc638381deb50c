"""Embedding models as sentence-transformers has them, on the family that ships: vectors by every pooling, losses of pairs and of texts with
partners and their gradient with respect to an expert's coefficient, and what its evaluators measure.

    python scripts/golden/embedding.py     # writes test/golden/embedding.json"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer, models
from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator, InformationRetrievalEvaluator
from sentence_transformers.losses import CosineSimilarityLoss, MultipleNegativesRankingLoss
from torch.func import functional_call

ROOT = Path(__file__).resolve().parents[2]
FAMILY = ROOT / "checkpoints" / "mini"
COEFFICIENTS = [0.4, 0.3]
POOLINGS = ["cls", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


def texts(task, count):
    lines = (ROOT / "data" / "mini" / task / "validation.jsonl").read_text().splitlines()[:count]
    rows = [json.loads(line) for line in lines]
    return [(row["text_a"], row["text_b"]) for row in rows]


def sentence_model(folder, pooling="mean", dense=None):
    transformer = models.Transformer(str(folder), max_seq_length=48)
    transformer.auto_model.float()
    width = 96
    pool = models.Pooling(width, pooling_mode=pooling)
    return SentenceTransformer(modules=[transformer, pool, *([dense] if dense else []), models.Normalize()], device="cpu").eval()


def merged_weights(base, experts, coefficients):
    start = dict(base[0].auto_model.named_parameters())
    own = [dict(expert[0].auto_model.named_parameters()) for expert in experts]
    return {name: p.detach() + sum(c * (e[name].detach() - p.detach()) for c, e in zip(coefficients, own)) for name, p in start.items()}


def embed(base, weights, sentences):
    features = base.tokenize(sentences)
    out = functional_call(base[0].auto_model, weights, (), {k: features[k] for k in ("input_ids", "attention_mask", "token_type_ids")})
    x = out.last_hidden_state
    mask = features["attention_mask"].unsqueeze(-1).float()
    return torch.nn.functional.normalize((x * mask).sum(1) / mask.sum(1), dim=1)


class Given(torch.nn.Module):
    """Stands for a model whose embeddings are there already: the library's losses ask for them by their features."""

    similarity_fn_name = "cosine"

    def forward(self, features):
        return {"sentence_embedding": features["x"]}


def gradient(loss_of, base, experts):
    c = torch.tensor(COEFFICIENTS, requires_grad=True)
    loss = loss_of(merged_weights(base, experts, c))
    return dict(loss=loss.item(), gradient=torch.autograd.grad(loss, c)[0].tolist())


def main():
    torch.manual_seed(0)
    base, experts = sentence_model(FAMILY / "base"), [sentence_model(FAMILY / "experts" / task) for task in ("rte", "cb")]
    pairs = texts("rte", 12)
    sentences = [one for pair in pairs[:3] for one in pair]
    dense = models.Dense(96, 5, activation_function=torch.nn.Tanh())
    wanted = dict(sentences=sentences, coefficients=COEFFICIENTS, poolings={}, dense=dict(weight=dense.linear.weight.flatten().tolist(), bias=dense.linear.bias.tolist(), out=5))
    for pooling in POOLINGS:
        wanted["poolings"][pooling.replace("_tokens", "")] = sentence_model(FAMILY / "base", pooling).encode(sentences).tolist()
    wanted["dense"]["vectors"] = sentence_model(FAMILY / "base", "mean", dense).encode(sentences).tolist()
    assert torch.allclose(embed(base, dict(base[0].auto_model.named_parameters()), sentences), torch.tensor(base.encode(sentences)), atol=1e-6)

    scored = [(a, b, round((i * 0.37) % 1, 3)) for i, (a, b) in enumerate(pairs)]
    columns = lambda rows, which: [row[which] for row in rows]
    given = Given()
    cosine = CosineSimilarityLoss(given)

    def pair_loss(weights):
        u, v = embed(base, weights, columns(scored, 0)), embed(base, weights, columns(scored, 1))
        return cosine([dict(x=u), dict(x=v)], torch.tensor(columns(scored, 2)))

    # Two texts share their first one: it has two partners.
    triplets = [(a, b, pairs[(i + 5) % len(pairs)][1]) for i, (a, b) in enumerate(pairs)]
    triplets[3] = (triplets[0][0], *triplets[3][1:])
    contrast = MultipleNegativesRankingLoss(given)

    def triplet_loss(weights):
        return contrast([dict(x=embed(base, weights, columns(triplets, which))) for which in range(3)], torch.zeros(0))

    told = [embed(base, dict(experts[0][0].auto_model.named_parameters()), columns(triplets, which)).detach() for which in range(3)]

    def taught_loss(weights):
        return torch.stack([1 - (embed(base, weights, columns(triplets, which)) * told[which]).sum(1) for which in range(3)]).mean()

    wanted["pairs"] = dict(rows=scored, **gradient(pair_loss, base, experts))
    wanted["triplets"] = dict(rows=triplets, **gradient(triplet_loss, base, experts))
    wanted["taught"] = gradient(taught_loss, base, experts)

    merged = sentence_model(FAMILY / "base")
    with torch.no_grad():
        for name, p in merged_weights(base, experts, COEFFICIENTS).items():
            dict(merged[0].auto_model.named_parameters())[name].copy_(p)
    similarity = EmbeddingSimilarityEvaluator(*(columns(scored, i) for i in range(3)), main_similarity="cosine")(merged)
    wanted["pairs"]["measured"] = {key: next(v for k, v in similarity.items() if k.endswith(f"{key}_cosine")) for key in ("spearman", "pearson")}
    corpus = {text: text for row in triplets for text in row[1:]}
    queries = {row[0]: row[0] for row in triplets}
    relevant = {query: {row[1] for row in triplets if row[0] == query} for query in queries}
    found = InformationRetrievalEvaluator(queries, corpus, relevant)(merged)
    keys = {"ndcg@10": "cosine_ndcg@10", "mrr@10": "cosine_mrr@10", "accuracy@1": "cosine_accuracy@1"}
    wanted["triplets"]["measured"] = {ours: next(v for k, v in found.items() if k.endswith(theirs)) for ours, theirs in keys.items()}

    # A folder as the library writes it, without what the family has already.
    with tempfile.TemporaryDirectory() as place:
        sentence_model(FAMILY / "base", "cls", dense).save(place)
        out = ROOT / "test" / "golden" / "embedding"
        shutil.rmtree(out, ignore_errors=True)
        for path in Path(place).rglob("*"):
            name = path.relative_to(place)
            if path.is_file() and (len(name.parts) > 1 or name.name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, out / name)
    wanted["saved"] = sentence_model(FAMILY / "base", "cls", dense).encode(sentences).tolist()
    (ROOT / "test" / "golden" / "embedding.json").write_text(json.dumps(wanted) + "\n")


main()
