"""A small SentencePiece model of T5's kind, and what SentencePiece makes of texts.

    python scripts/golden/sentencepiece_ids.py     # writes test/golden/sentencepiece/ (needs sentencepiece)

The model replaces characters by a short table of its own (T5's own has 240 kB), with everything that such a table does: one character by
several, several by one, a longer beginning before a shorter one, and what is replaced by nothing."""

import json
import random
from pathlib import Path

import sentencepiece as spm

OUT = Path(__file__).parents[2] / "test" / "golden" / "sentencepiece"
OUT.mkdir(parents=True, exist_ok=True)

RULES = [("ﬁ", "fi"), ("…", "..."), ("Ａ", "A"), ("e\u0301", "é"), ("a\u0301", "á"), ("\u00a0", " "), ("\t", " "), ("\n", " "), ("\u200b", ""),
         ("①", "1"), ("ab…", "AB"), ("漢字", "kanji"), ("🙂", ":)")]
table = OUT / "rules.tsv"
table.write_text("".join(f"{' '.join(f'{ord(c):X}' for c in a)}\t{' '.join(f'{ord(c):X}' for c in b)}\n" for a, b in RULES))

WORDS = "the cat sat on mat and dog ate its food while rain fell over old town kanji fine final AB abbey élan ... A 1 2 : ) á".split()
draw = random.Random(3)
lines = [" ".join(draw.choice(WORDS) for _ in range(draw.randint(3, 12))) for _ in range(400)]
spm.SentencePieceTrainer.train(
    sentence_iterator=iter(lines), model_prefix=str(OUT / "spiece"), vocab_size=62, model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    normalization_rule_tsv=str(table), character_coverage=1.0, minloglevel=2)
table.unlink()
(OUT / "spiece.vocab").unlink()

processor = spm.SentencePieceProcessor(model_file=str(OUT / "spiece.model"))
TEXTS = ["the cat sat on the mat.", "  the   cat \n sat\t", "", " ", "ﬁnal ﬁne… ＡAB", "e\u0301lan elan a\u0301b", "ab… abc ab", "no\u00a0break\u200bzero", "漢字 漢 ①",
         "🙂 is :)", "unknown ŝ words ¿ here", "▁under ▁ score", "catcatcat dogfood", "THE CAT", "a" * 40, "e\u0301e\u0301 \u0301e"]
TEXTS += [" ".join(draw.choice(WORDS + ["ﬁ", "xyz", "…", "  "]) for _ in range(draw.randint(1, 9))) for _ in range(20)]
cases = [{"text": text, "ids": processor.encode(text)} for text in TEXTS]
(OUT / "ids.json").write_text(json.dumps({"version": spm.__version__, "cases": cases}, ensure_ascii=False, indent=0) + "\n")
(OUT / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 4}) + "\n")
print([p.name + " " + str(p.stat().st_size) for p in OUT.iterdir()])
