"""Golden values of the kinds of answers beside classes: numbers, several labels, tags, spans; and of the metrics.

    .venv/bin/pip install -r scripts/golden/requirements.txt
    .venv/bin/python scripts/golden/kinds.py

Writes test/golden/kinds: metrics.json (scikit-learn, SciPy, seqeval, rouge-score, SQuAD's rules), characters.json (the
places that tokenizers report), and a folder a family: a base as transformers' class for masked words or a causal
language model saves it, an expert of every kind, their tokenizer, and golden.json with examples, logits, losses and
∂L/∂c of a merge in which the c-th expert's task vector is weighted by one coefficient.
"""
import json
import os
import re
import shutil
import string
from collections import Counter
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import tokenizers as tk
import torch
import transformers as tf
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.func import functional_call

OUT = Path(__file__).resolve().parents[2] / "test" / "golden" / "kinds"
tf.logging.set_verbosity_error()

TEXTS = [
    "The river Elbe rises in Bohemia and flows to the sea near Hamburg.",
    "Café Müller opened in 1978, its façade is yellow; “Olé!” they cried.",
    "Dr. Smith-Jones (42) paid $3.50 for a naïve cat's coat…",
    "東京 is the capital of Japan, and it is large.",
    "An emoji 🙂 stands here, then a word.",
    "  Two  spaces\tand a tab, then\na line.",
]


def wordpiece():
    t = tk.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator(TEXTS[:3] * 3, trainers.WordPieceTrainer(vocab_size=160, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    t.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", t.token_to_id("[CLS]")), ("[SEP]", t.token_to_id("[SEP]"))])
    t.decoder = decoders.WordPiece()
    return tf.PreTrainedTokenizerFast(tokenizer_object=t, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
                                      model_input_names=["input_ids", "token_type_ids", "attention_mask"])


def bytelevel(roberta):
    t = tk.Tokenizer(models.BPE())
    # As Llama 3's and Qwen's files have it; GPT-2's and RoBERTa's cut words themselves.
    words = pre_tokenizers.Split(tk.Regex(r"\s?[\p{L}\p{N}]+|[^\s\p{L}\p{N}]+|\s+"), "isolated")
    plain = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True) if roberta else plain
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if roberta else ["<pad>", "</s>"]
    t.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.decoder = decoders.ByteLevel()
    if roberta:
        t.post_processor = processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>")), add_prefix_space=True)
        return tf.PreTrainedTokenizerFast(tokenizer_object=t, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>", mask_token="<mask>")
    return tf.PreTrainedTokenizerFast(tokenizer_object=t, pad_token="<pad>", eos_token="</s>")


def unigram():
    t = tk.Tokenizer(models.Unigram())
    t.normalizer = normalizers.NFKC()
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(TEXTS[:3] * 3, trainers.UnigramTrainer(vocab_size=120, special_tokens=["<pad>", "<unk>", "<s>", "</s>"], unk_token="<unk>"))
    t.decoder = decoders.Metaspace()
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    return tf.PreTrainedTokenizerFast(tokenizer_object=t, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>")


def utf16(text, place):
    """Where a place in Python's characters is in JavaScript's."""
    return len(text[:place].encode("utf-16-le")) // 2


def characters():
    out = {}
    for name, tokenizer in [("wordpiece", wordpiece()), ("bytes", bytelevel(True)), ("unigram", unigram())]:
        folder = OUT / "characters" / name
        tokenizer.save_pretrained(folder)
        for file in folder.iterdir():
            if file.name not in ("tokenizer.json", "tokenizer_config.json"):
                file.unlink()
        out[name] = []
        for text in TEXTS:
            found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            out[name].append({
                "text": text,
                "ids": found["input_ids"],
                # Spaces in front belong to no word: byte-level tokenizers report some of them as a token's own.
                "spans": [[utf16(text, a + len(text[a:b]) - len(text[a:b].lstrip())), utf16(text, b)] for a, b in found["offset_mapping"]],
            })
    return out


def normalise(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad(said, answers):
    """SQuAD's script, version 2."""
    golds = answers or [""]
    def f1(gold):
        a, b = normalise(gold).split(), normalise(said).split()
        if not a or not b:
            return float(a == b)
        same = sum((Counter(a) & Counter(b)).values())
        return 0.0 if same == 0 else 2 * (same / len(b)) * (same / len(a)) / (same / len(b) + same / len(a))
    return max(f1(g) for g in golds), max(float(normalise(g) == normalise(said)) for g in golds)


def metric_cases():
    import scipy.stats
    from rouge_score import rouge_scorer
    from seqeval.metrics import f1_score as entity_f1
    from sklearn import metrics as sk

    rng = np.random.default_rng(0)
    classes = []
    for labels, n in [(2, 40), (3, 31), (5, 17), (2, 1), (4, 200)]:
        right, said = rng.integers(labels, size=n), rng.integers(labels, size=n)
        said = np.where(rng.random(n) < 0.5, right, said)
        one = {"right": right.tolist(), "said": said.tolist(),
               "accuracy": sk.accuracy_score(right, said),
               "f1-macro": sk.f1_score(right, said, average="macro", zero_division=0),
               "f1-micro": sk.f1_score(right, said, average="micro", zero_division=0),
               "matthews": sk.matthews_corrcoef(right, said)}
        if labels == 2:
            one["f1"] = sk.f1_score(right, said, pos_label=1, average="binary", zero_division=0)
            one["f1-of-0"] = sk.f1_score(right, said, pos_label=0, average="binary", zero_division=0)
        classes.append(one)
    # One side says one class alone.
    classes.append({"right": [0, 1, 1], "said": [1, 1, 1], "accuracy": 2 / 3, "f1-macro": sk.f1_score([0, 1, 1], [1, 1, 1], average="macro", zero_division=0),
                    "f1-micro": sk.f1_score([0, 1, 1], [1, 1, 1], average="micro", zero_division=0), "matthews": sk.matthews_corrcoef([0, 1, 1], [1, 1, 1])})
    marks = []
    for labels, n in [(3, 20), (6, 50), (4, 1)]:
        right, said = rng.integers(2, size=(n, labels)), rng.integers(2, size=(n, labels))
        said[:, 0] = 0
        said[: n // 2] = right[: n // 2]
        marks.append({"right": right.tolist(), "said": said.tolist(),
                      "f1-macro": sk.f1_score(right, said, average="macro", zero_division=0),
                      "f1-micro": sk.f1_score(right, said, average="micro", zero_division=0),
                      "exact-match": sk.accuracy_score(right, said)})
    numbers = []
    for n in [5, 40]:
        x = np.round(rng.normal(size=n), 1)
        y = np.round(0.5 * x + rng.normal(size=n), 1)
        numbers.append({"right": y.tolist(), "said": x.tolist(), "pearson": scipy.stats.pearsonr(x, y)[0], "spearman": scipy.stats.spearmanr(x, y)[0]})
    tags = []
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "E-LOC", "S-PER"]
    for kept in [5, 7]:
        right = [[names[i] for i in rng.integers(kept, size=rng.integers(1, 9))] for _ in range(30)]
        said = [[names[rng.integers(kept)] if rng.random() < 0.4 else tag for tag in row] for row in right]
        tags.append({"right": right, "said": said, "entity-f1": float(entity_f1(right, said, zero_division=0))})
    tags.append({"right": [["O", "O"]], "said": [["O", "O"]], "entity-f1": float(entity_f1([["O", "O"]], [["O", "O"]], zero_division=0))})
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    texts = []
    for said, answers in [
        ("the cat sat on the mat", ["A cat sat on a mat.", "the dog"]), ("", ["nothing"]), ("nothing", []), ("", []),
        ("The, end!", ["end"]), ("one two three two one", ["two one two", "one one"]), ("ünder öl", ["under oil"]), ("in 1978", ["1978"]),
    ]:
        f1, exact = squad(said, answers)
        rouge = scorer.score_multi(answers or [""], said)
        texts.append({"said": said, "answers": answers, "span-f1": f1, "exact-match": exact, **{k: v.fmeasure for k, v in rouge.items()}})
    return {"classes": classes, "marks": marks, "numbers": numbers, "tags": tags, "texts": texts}


TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
MARKS = ["art", "food", "money", "animals"]
EXAMPLES = {
    "stars": [["The river Elbe", 0.5], ["Dr. Smith-Jones paid for a cat's coat…", 2.25], ["its façade is yellow", -1.0]],
    "topics": [["The river Elbe", [0, 0, 0, 0]], ["Dr. Smith-Jones paid for a cat's coat…", [0, 0, 1, 1]], ["its façade is yellow", [1, 0, 0, 0]]],
    "entities": [[["Dr.", "Smith-Jones", "paid"], [1, 2, 0]], [["Hamburg", "is", "near", "the", "sea"], [3, 0, 0, 0, 0]]],
    "places": [["Where does the Elbe rise?", TEXTS[0], "Bohemia"], ["When did it open?", TEXTS[1], "1978"], ["Who paid?", TEXTS[2], "Dr. Smith-Jones"]],
}


def scramble(model, generator, scale):
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * scale)


def family(name, tokenizer, config, base_class, classes, prefix):
    """A base, an expert a kind, and what PyTorch makes of them. `prefix` is the body's within each model."""
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    base = base_class(config)
    scramble(base, generator, 0.15)
    base.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    for file in (folder / "base").iterdir():
        if file.name not in ("tokenizer.json", "tokenizer_config.json", "config.json", "model.safetensors"):
            file.unlink()
    body = {k.removeprefix(prefix["base"]): v.detach() for k, v in base.named_parameters() if k.startswith(prefix["base"])}
    labels = {"stars": ["LABEL_0"], "topics": MARKS, "entities": TAGS, "places": ["LABEL_0", "LABEL_1"]}
    problem = {"stars": "regression", "topics": "multi_label_classification"}
    experts = {}
    for task, cls in classes.items():
        own = type(config)(**{**config.to_dict(), "problem_type": problem.get(task), "id2label": dict(enumerate(labels[task])), "label2id": {l: i for i, l in enumerate(labels[task])}})
        expert = cls(own)
        with torch.no_grad():
            for k, p in expert.named_parameters():
                start = body.get(k.removeprefix(prefix[task])) if k.startswith(prefix[task]) else None
                p.copy_((torch.zeros_like(p) if start is None else start) + torch.randn(p.shape, generator=generator) * (0.4 if start is None else 0.1))
        expert.eval()
        expert.save_pretrained(folder / task)
        for file in (folder / task).iterdir():
            if file.name not in ("config.json", "model.safetensors"):
                file.unlink()
        experts[task] = expert
    deltas = {task: {k.removeprefix(prefix[task]): p.detach() - body[k.removeprefix(prefix[task])] for k, p in expert.named_parameters() if k.startswith(prefix[task]) and k.removeprefix(prefix[task]) in body}
              for task, expert in experts.items()}
    coefficients = torch.tensor([0.1, 0.2, 0.3, 0.15][: len(experts)], requires_grad=True)
    merged = {k: v + sum(coefficients[i] * deltas[task][k] for i, task in enumerate(experts) if k in deltas[task]) for k, v in body.items()}
    golden = {"tasks": list(experts), "coefficients": coefficients.tolist(), "examples": EXAMPLES, "of": {}}
    total = 0
    for task, expert in experts.items():
        weights = {k: merged.get(k.removeprefix(prefix[task]), p.detach()) if k.startswith(prefix[task]) else p.detach() for k, p in expert.named_parameters()}
        rows, losses, own = [], [], []
        for example in EXAMPLES[task]:
            if task == "entities":
                words, tags = example
                found = tokenizer(words, is_split_into_words=True, return_tensors="pt")
                seen, target = set(), []
                for word in found.word_ids():
                    target.append(-100 if word is None or word in seen else tags[word])
                    seen.add(word)
                more = {"labels": torch.tensor([target])}
            elif task == "places":
                question, context, answer = example
                found = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True, return_token_type_ids=True)
                offsets = found.pop("offset_mapping")[0].tolist()
                at = context.index(answer)
                within = [i for i, s in enumerate(found.sequence_ids()) if s == 1]
                first = max(i for i in within if offsets[i][0] <= at and offsets[i][1] > at)
                last = min(i for i in within if offsets[i][1] >= at + len(answer))
                more = {"start_positions": torch.tensor([first]), "end_positions": torch.tensor([last])}
                target = [first, last]
            else:
                text, target = example
                found = tokenizer(text, return_tensors="pt")
                more = {"labels": torch.tensor([[float(v) for v in target]]) if task == "topics" else torch.tensor([target])}
            inputs = {k: v for k, v in found.items() if k in ("input_ids", "attention_mask", "token_type_ids")}
            if "token_type_ids" in inputs and name != "bert":
                del inputs["token_type_ids"]
            result = functional_call(expert, weights, (), {**inputs, **more})
            alone = expert(**inputs)
            shown = lambda r: torch.stack([r.start_logits[0], r.end_logits[0]], -1).tolist() if task == "places" else r.logits[0].tolist()
            losses.append(result.loss)
            rows.append({"ids": inputs["input_ids"][0].tolist(), "target": target, "merged": shown(result), "expert": shown(alone)})
        # The mean over an epoch's decisions: of tags, every tag counts alike.
        if task == "entities":
            counts = torch.tensor([sum(t >= 0 for t in row["target"]) for row in rows], dtype=torch.float32)
            loss = (torch.stack(losses) * counts).sum() / counts.sum()
        else:
            loss = torch.stack(losses).mean()
        total = total + loss
        golden["of"][task] = {"rows": rows, "loss": loss.item()}
    total.backward()
    golden["gradient"] = coefficients.grad.tolist()
    (folder / "golden.json").write_text(json.dumps(golden))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "metrics.json").write_text(json.dumps(metric_cases()))
    (OUT / "characters.json").write_text(json.dumps(characters()))
    small = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    words = wordpiece()
    config = tf.BertConfig(vocab_size=len(words), max_position_embeddings=96, **small)
    family("bert", words, config, tf.BertForMaskedLM, {
        "stars": tf.BertForSequenceClassification, "topics": tf.BertForSequenceClassification, "entities": tf.BertForTokenClassification, "places": tf.BertForQuestionAnswering,
    }, {task: "bert." for task in ["base", *EXAMPLES]})
    words = bytelevel(True)
    config = tf.RobertaConfig(vocab_size=len(words), max_position_embeddings=98, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2, **small)
    family("roberta", words, config, tf.RobertaForMaskedLM, {
        "stars": tf.RobertaForSequenceClassification, "topics": tf.RobertaForSequenceClassification, "entities": tf.RobertaForTokenClassification, "places": tf.RobertaForQuestionAnswering,
    }, {task: "roberta." for task in ["base", *EXAMPLES]})
    words = bytelevel(False)
    config = tf.LlamaConfig(vocab_size=len(words), max_position_embeddings=128, pad_token_id=0, eos_token_id=1, bos_token_id=None, num_key_value_heads=1, **small)
    family("llama", words, config, tf.LlamaForCausalLM, {
        "stars": tf.LlamaForSequenceClassification, "topics": tf.LlamaForSequenceClassification, "entities": tf.LlamaForTokenClassification, "places": tf.LlamaForQuestionAnswering,
    }, {"base": "model.", "stars": "model.", "topics": "model.", "entities": "model.", "places": "transformer."})


if __name__ == "__main__":
    main()
