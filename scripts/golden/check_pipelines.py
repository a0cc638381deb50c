"""Own models from end to end: families that transformers makes, merged by one command each, opened by transformers.

    .venv/bin/pip install -r scripts/golden/requirements.txt
    .venv/bin/python scripts/golden/check_pipelines.py FOLDER

For BERT (a base for masked words), Llama (a causal language model), ViT and LoRA adapters of BERT: makes a base, experts
of every kind of task and their data in every kind of file, runs `train-merge --tasks … --experts … --data …` and
`train-merge evaluate OUT --answers`, opens OUT/tasks/<task> with a pipeline, or the task's own class, or PEFT, and
compares what both say of every test example. Exits 1 where any differs (numbers: by more than 1e-3).
"""
import csv
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import peft
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers as tf
from kinds import bytelevel, scramble, wordpiece
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(sys.argv[1])
tf.logging.set_verbosity_error()
WORDS = ["river", "Elbe", "sea", "Hamburg", "cat", "coat", "paid", "yellow", "opened", "façade"]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
MARKS = ["art", "food", "money", "animals"]
draw = random.Random(0)
small = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)


def text(least=3):
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(least, 8)))


def span_row():
    context = text(4)
    word = context.split(" ")[1]
    return {"question": f"Where is {word}?", "context": context, "answers": {"text": [word], "answer_start": [context.index(word)]}}


def tag_row():
    words = text().split(" ")
    return {"tokens": words, "ner_tags": [3 if w == "Elbe" else 1 if w == "cat" else 0 for w in words]}


ROWS = {
    "mood": lambda: {"text": text(), "label": draw.choice(["sad", "glad", "so-so"])},
    "duel": lambda: {"sentence1": text(), "sentence2": text(), "label": draw.randint(0, 1)},
    "stars": lambda: {"body": text(), "score": round(draw.random() * 5, 2)},
    "topics": lambda: {"text": text(), "labels": [m for m in MARKS if draw.random() < 0.4]},
    "entities": tag_row,
    "places": span_row,
    "ending": lambda: {"premise": text(), "choices": [text(), text(), text()], "label": draw.randint(0, 2)},
}
FILES = {"mood": "jsonl", "duel": "csv", "stars": "tsv", "topics": "parquet", "entities": "parquet", "places": "jsonl", "ending": "jsonl"}
LABELS = {"mood": ["sad", "so-so", "glad"], "duel": ["LABEL_0", "LABEL_1"], "stars": ["LABEL_0"], "topics": MARKS, "entities": TAGS, "places": ["LABEL_0", "LABEL_1"], "ending": ["LABEL_0"]}
PROBLEM = {"stars": "regression", "topics": "multi_label_classification"}


def write_rows(path, rows, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as f:
            writer = csv.DictWriter(f, rows[0].keys(), delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)


def data(folder, tasks):
    tests = {}
    for task in tasks:
        for split, count in [("validation", 16), ("test", 24)]:
            rows = [ROWS[task]() for _ in range(count)]
            write_rows(folder / task / f"{split}.{FILES[task]}", rows, FILES[task])
            tests[task] = rows
    return tests


def save(model, folder, tokenizer=None):
    model.save_pretrained(folder)
    if tokenizer:
        tokenizer.save_pretrained(folder)


def expert_of(base, cls, config, task):
    """A model of the base's weights, changed a little, with a head of its own."""
    labels = LABELS.get(task, [])
    own = type(config)(**{**config.to_dict(), "problem_type": PROBLEM.get(task), "id2label": dict(enumerate(labels)), "label2id": {l: i for i, l in enumerate(labels)}})
    model = cls(own)
    body = dict(base.named_parameters())
    with torch.no_grad():
        for name, p in model.base_model.named_parameters():
            start = body.get(name)
            p.copy_((torch.zeros_like(p) if start is None else start) + torch.randn_like(p) * (0.5 if start is None else 0.08))
        for name, p in model.named_parameters():
            if not name.startswith(model.base_model_prefix):
                p.copy_(torch.randn_like(p))
    return model.eval()


def train_merge(*args):
    done = subprocess.run(["node", str(ROOT / "dist/src/cli/main.js"), *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"train-merge {' '.join(map(str, args))}\n{done.stderr}")
    return done.stdout


def answers_in(path, tasks):
    answers = {task: [] for task in tasks}
    for line in path.read_text().splitlines():
        one = json.loads(line)
        answers[one["task"]].append(one["answer"])
    return answers


def merge(folder, tasks, *more):
    """One command; then what it says of every test example."""
    train_merge("--tasks", ",".join(tasks), "--experts", *(f"{t}={folder / t}" for t in tasks), "--base", folder / "base", "--data", folder / "data",
                "--steps", 4, "--backend", "wasm", "--out", folder / "out", *more)
    train_merge("evaluate", folder / "out", "--answers", folder / "answers.jsonl")
    return answers_in(folder / "answers.jsonl", tasks)


def best_span(model, tokenizer, row):
    found = tokenizer(row["question"], row["context"], return_tensors="pt", return_offsets_mapping=True, return_token_type_ids=True)
    offsets, ids = found.pop("offset_mapping")[0].tolist(), found.sequence_ids()
    if model.config.model_type != "bert":
        found.pop("token_type_ids")
    with torch.no_grad():
        result = model(**found)
    start, end = result.start_logits[0], result.end_logits[0]
    within = [i for i, s in enumerate(ids) if s == 1]
    first, last = max(((i, j) for i in within for j in within if i <= j < i + 30), key=lambda p: (start[p[0]] + end[p[1]]).item())
    return row["context"][offsets[first][0]:offsets[last][1]].strip()


def said(task, folder, row, model=None):
    """What transformers says of a row: by a pipeline where there is one."""
    tokenizer = tf.AutoTokenizer.from_pretrained(folder.parent.parent if model else folder)
    where = dict(model=model or str(folder), tokenizer=tokenizer)
    if task == "mood":
        return tf.pipeline("text-classification", **where)(row["text"])[0]["label"]
    if task == "duel":
        found = tf.pipeline("text-classification", **where)({"text": row["sentence1"], "text_pair": row["sentence2"]})
        label = (found[0] if isinstance(found, list) else found)["label"]
        return label.removeprefix("LABEL_")
    if task == "stars":
        return tf.pipeline("text-classification", **where)(row["body"], function_to_apply="none")[0]["score"]
    if task == "topics":
        found = tf.pipeline("text-classification", top_k=None, **where)(row["text"])
        return [m for m in MARKS if {one["label"]: one["score"] for one in (found[0] if isinstance(found[0], list) else found)}[m] > 0.5]
    own = model or {"entities": tf.AutoModelForTokenClassification, "places": tf.AutoModelForQuestionAnswering, "ending": tf.AutoModelForMultipleChoice}[task].from_pretrained(folder)
    if task == "entities":
        found = tf.pipeline("token-classification", model=own, tokenizer=tokenizer, ignore_labels=[])([row["tokens"]], is_split_into_words=True)[0]
        by_word = {}
        words = tokenizer(row["tokens"], is_split_into_words=True).word_ids()
        for one in found:
            by_word.setdefault(words[one["index"]], one["entity"])
        return [by_word[i] for i in range(len(row["tokens"]))]
    if task == "places":
        return best_span(own, tokenizer, row)
    inputs = tokenizer([row["premise"]] * 3, row["choices"], padding=True, return_tensors="pt", return_token_type_ids=True)
    with torch.no_grad():
        return int(own(**{k: v[None] for k, v in inputs.items()}).logits[0].argmax())


def same(ours, theirs):
    if isinstance(theirs, float):
        return abs(ours - theirs) < 1e-3
    return ours == theirs


def compare(name, task, ours, theirs):
    wrong = [(a, b) for a, b in zip(ours, theirs, strict=True) if not same(a, b)]
    print(f"{name}, {task}: {len(ours) - len(wrong)} of {len(ours)} answers are equal" + (f"; {wrong[:3]}" if wrong else ""), flush=True)
    return not wrong


def family(name, tokenizer, config, base_class, stem, tasks, *more):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    base = base_class(config)
    scramble(base, torch.Generator().manual_seed(2), 0.15)
    save(base, folder / "base", tokenizer)
    kinds = {"entities": "TokenClassification", "places": "QuestionAnswering", "ending": "MultipleChoice"}
    for task in tasks:
        cls = getattr(tf, f"{stem}For{kinds.get(task, 'SequenceClassification')}")
        save(expert_of(base.base_model, cls, config, task), folder / task)
    tests = data(folder / "data", tasks)
    answers = merge(folder, tasks, *more)
    return all([compare(name, task, answers[task], [said(task, folder / "out" / "tasks" / task, row) for row in tests[task]]) for task in tasks])


CLASSES = {"mood": ("SEQ_CLS", tf.BertForSequenceClassification), "stars": ("SEQ_CLS", tf.BertForSequenceClassification), "entities": ("TOKEN_CLS", tf.BertForTokenClassification)}


def in_peft(task, folder, base):
    """An adapter on its base, as PEFT opens it. What the base lacks is drawn anew: the adapter must bring it."""
    torch.manual_seed(random.SystemRandom().randrange(1000))
    model = CLASSES[task][1].from_pretrained(base, config=tf.AutoConfig.from_pretrained(folder))
    return peft.PeftModel.from_pretrained(model, folder).merge_and_unload().eval()


def adapters(name, tokenizer, config, base_class, tasks, *more):
    """LoRA of a BERT with heads; the result is an adapter a task, which PEFT opens. A base for masked words has no pooler."""
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    base = base_class(config)
    scramble(base, torch.Generator().manual_seed(2), 0.15)
    save(base, folder / "base", tokenizer)
    for task in tasks:
        labels = LABELS[task]
        kind, cls = CLASSES[task]
        saved = ["pooler", "classifier"] if base_class is tf.BertForMaskedLM and kind == "SEQ_CLS" else None
        own = tf.BertConfig(**{**config.to_dict(), "problem_type": PROBLEM.get(task), "id2label": dict(enumerate(labels)), "label2id": {l: i for i, l in enumerate(labels)}})
        model = peft.get_peft_model(cls.from_pretrained(folder / "base", config=own), peft.LoraConfig(task_type=kind, r=4, lora_alpha=8, target_modules=["query", "value"], modules_to_save=saved))
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.copy_(torch.randn_like(p) * 0.3)
        model.save_pretrained(folder / task)
        # PEFT writes no config; where there is none, the tasks' list says the labels.
        if base_class is tf.BertModel:
            own.architectures = [cls.__name__]
            own.save_pretrained(folder / task)
    tests = data(folder / "data", tasks)
    if base_class is tf.BertForMaskedLM:
        kinds = {"mood": "single", "stars": "regression", "entities": "tokens"}
        listed = {task: {"kind": kinds[task], **({} if task == "stars" else {"labels": LABELS[task]})} for task in tasks}
        (folder / "data" / "tasks.json").write_text(json.dumps(listed))
    answers = merge(folder, tasks, *more)
    good = True
    for task in tasks:
        at = folder / "out" / "tasks" / task
        whole = in_peft(task, at, folder / "base")
        tokenizer.save_pretrained(folder / "out")
        good &= compare(name, task, answers[task], [said(task, at, row, whole) for row in tests[task]])
    return good


def finetuned(name, tokenizer, config, base_class, tasks, how):
    """Experts of `train-merge finetune`, as transformers or PEFT opens them; the base bare, or one for other words."""
    folder = OUT / f"{name}{'-'.join(how)}"
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    base = base_class(config)
    scramble(base, torch.Generator().manual_seed(2), 0.15)
    save(base, folder / "base", tokenizer)
    tokenizer.save_pretrained(folder / "experts")
    tests = data(folder / "data", tasks)
    good = True
    for task in tasks:
        at = folder / "experts" / "of" / task
        write_rows(folder / "data" / task / f"train.{FILES[task]}", [ROWS[task]() for _ in range(32)], FILES[task])
        common = ["--data", folder / "data", "--base", folder / "base"]
        train_merge("finetune", "--task", task, *common, "--out", at, "--epochs", 2, "--lr", 0.01, "--backend", "wasm", *how)
        train_merge("evaluate", at, "--tasks", task, *common, "--answers", folder / f"{task}.jsonl")
        model = in_peft(task, at, folder / "base") if how else None
        if not how:
            tokenizer.save_pretrained(at)
        ours = answers_in(folder / f"{task}.jsonl", [task])[task]
        good &= compare(folder.name, task, ours, [said(task, at, row, model) for row in tests[task]])
    return good


def images(name, *more):
    """ViT with pictures in folders by class."""
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    config = tf.ViTConfig(image_size=16, patch_size=4, **small)
    base = tf.ViTModel(config, add_pooling_layer=False)
    scramble(base, torch.Generator().manual_seed(2), 0.15)
    save(base, folder / "base")
    processor = tf.ViTImageProcessorFast(size={"height": 16, "width": 16})
    processor.save_pretrained(folder / "base")
    tests = {}
    for task, labels in [("shapes", ["round", "square"]), ("hues", ["blue", "green", "red"])]:
        own = tf.ViTConfig(**{**config.to_dict(), "id2label": dict(enumerate(labels)), "label2id": {l: i for i, l in enumerate(labels)}})
        expert = tf.ViTForImageClassification(own)
        with torch.no_grad():
            body = dict(base.named_parameters())
            for n, p in expert.vit.named_parameters():
                p.copy_(body[n] + torch.randn_like(p) * 0.08)
            for p in expert.classifier.parameters():
                p.copy_(torch.randn_like(p))
        save(expert, folder / task)
        tests[task] = []
        for split, count in [("validation", 4), ("test", 6)]:
            for label in labels:
                for i in range(count):
                    path = folder / "data" / task / split / label / f"{i}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(np.random.default_rng(hash((task, split, label, i)) % 2**32).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
                    if split == "test":
                        tests[task].append(path)
    answers = merge(folder, list(tests), *more)
    good = True
    for task, paths in tests.items():
        at = folder / "out" / "tasks" / task
        pipe = tf.pipeline("image-classification", model=str(at), image_processor=tf.AutoImageProcessor.from_pretrained(at))
        good &= compare(name, task, answers[task], [pipe(str(path))[0]["label"] for path in paths])
    return good


def main():
    words = wordpiece()
    bert = tf.BertConfig(vocab_size=len(words), max_position_embeddings=96, **small)
    columns = ["--columns", "stars.text=body"]
    good = family("bert", words, bert, tf.BertForMaskedLM, "Bert", list(ROWS), *columns)
    for kind, base_class in [("bare", tf.BertModel), ("masked", tf.BertForMaskedLM)]:
        good &= adapters(f"lora-{kind}", words, bert, base_class, list(CLASSES), *columns)
        for how in [[], ["--lora", 4]]:
            good &= finetuned(f"finetune-{kind}", words, bert, base_class, ["mood", "entities"], list(map(str, how)))
    words = bytelevel(False)
    llama = tf.LlamaConfig(vocab_size=len(words), max_position_embeddings=128, pad_token_id=0, eos_token_id=1, bos_token_id=None, num_key_value_heads=1, **small)
    good &= family("llama", words, llama, tf.LlamaForCausalLM, "Llama", ["mood", "stars", "topics", "entities", "places"], *columns)
    good &= images("vit")
    print("equal" if good else "DIFFERENT")
    sys.exit(not good)


if __name__ == "__main__":
    main()
